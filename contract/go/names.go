// Package dwcp is NovaCron's side of DWCP: it starts, watches and steers migrations through Temporal. The shapes are those
// of contract/schemas; contract/names.json and testdata are read by the tests of both languages.
package dwcp

import "go.temporal.io/sdk/temporal"

// ControlQueue takes the workflows.
const ControlQueue = "dwcp.control"

// Workflow types.
const (
	WorkflowMigrateVM    = "migrateVm"
	WorkflowWarmBaseline = "warmBaseline"
)

// Messages of a migration.
const (
	QueryProgress           = "progress"
	SignalCancel            = "request_cancel"
	UpdateRetryStep         = "retry_step"
	UpdateAbortMigration    = "abort_migration"
	UpdateSetBandwidthLimit = "set_bandwidth_limit"
)

// Search attributes, as the control worker registers them on its namespace.
var (
	AttributeVMID              = temporal.NewSearchAttributeKeyKeyword("VmId")
	AttributeMigrationID       = temporal.NewSearchAttributeKeyKeyword("MigrationId")
	AttributeSourceHost        = temporal.NewSearchAttributeKeyKeyword("SourceHost")
	AttributeDestinationHost   = temporal.NewSearchAttributeKeyKeyword("DestinationHost")
	AttributeMigrationPhase    = temporal.NewSearchAttributeKeyKeyword("MigrationPhase")
	AttributeMigrationMode     = temporal.NewSearchAttributeKeyKeyword("MigrationMode")
	AttributeNeedsOperator     = temporal.NewSearchAttributeKeyBool("NeedsOperator")
	AttributeMigrationPriority = temporal.NewSearchAttributeKeyInt64("MigrationPriority")
)

// MigrationWorkflowID is the id of the one migration of a VM that may be open.
func MigrationWorkflowID(vmID string) string { return "migrate-vm:" + vmID }

// WarmWorkflowID is the id of the warm-up of a VM's baseline on a host.
func WarmWorkflowID(vmID, destinationHost string) string {
	return "warm-baseline:" + vmID + ":" + destinationHost
}

// HostQueue takes the activities of a host's agent.
func HostQueue(hostID string) string { return "host." + hostID }

package dwcp

import (
	"context"
	"fmt"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
)

// Client moves VMs through a Temporal client that NovaCron owns.
type Client struct {
	temporal client.Client
	signer   *Signer
}

// New returns a client over an open connection to Temporal. Its requests are signed with the operator's key of TrustDir().
func New(temporalClient client.Client) (*Client, error) {
	signer, err := LoadSigner(TrustDir())
	if err != nil {
		return nil, err
	}
	return NewSigning(temporalClient, signer), nil
}

// NewSigning returns a client whose requests are signed by signer; hosts refuse what nobody has signed.
func NewSigning(temporalClient client.Client, signer *Signer) *Client {
	return &Client{temporal: temporalClient, signer: signer}
}

// Migration is one that was started or found; it goes on when the caller is gone.
type Migration struct {
	client     *Client
	WorkflowID string
	RunID      string
}

// StartOptions are those of a migration's workflow: one open per VM, findable by host and VM.
func StartOptions(request Request) client.StartWorkflowOptions {
	priority := 5
	if request.Options != nil && request.Options.Priority != nil {
		priority = *request.Options.Priority
	}
	var memo map[string]any
	if request.MigrationID != "" {
		memo = map[string]any{"migrationId": request.MigrationID}
	}
	return client.StartWorkflowOptions{
		ID:                                       MigrationWorkflowID(request.VMID),
		Memo:                                     memo,
		TaskQueue:                                ControlQueue,
		WorkflowIDConflictPolicy:                 enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowIDReusePolicy:                    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		Priority:                                 temporal.Priority{PriorityKey: 6 - (priority+1)/2},
		StaticSummary:                            fmt.Sprintf("%s: %s → %s", request.VMID, request.SourceHost, request.DestinationHost),
	}
}

// Migrate starts a migration. A second one of the same VM gets an *ErrorReport with MIGRATION_IN_PROGRESS.
func (c *Client) Migrate(ctx context.Context, request Request) (*Migration, error) {
	return c.start(ctx, WorkflowMigrateVM, request, func(request Request) client.StartWorkflowOptions {
		return StartOptions(request)
	})
}

// Warm brings the destination's baseline up to date without moving the VM.
func (c *Client) Warm(ctx context.Context, request Request) (*Migration, error) {
	return c.start(ctx, WorkflowWarmBaseline, request, func(request Request) client.StartWorkflowOptions {
		options := StartOptions(request)
		options.ID = WarmWorkflowID(request.VMID, request.DestinationHost)
		return options
	})
}

func (c *Client) start(ctx context.Context, workflow string, request Request, optionsOf func(Request) client.StartWorkflowOptions) (*Migration, error) {
	request.SchemaVersion = 1
	if c.signer != nil {
		if err := c.signer.signRequest(workflow, &request); err != nil {
			return nil, err
		}
	}
	run, err := c.temporal.ExecuteWorkflow(ctx, optionsOf(request), workflow, request)
	if err != nil {
		return nil, coded(err)
	}
	return &Migration{client: c, WorkflowID: run.GetID(), RunID: run.GetRunID()}, nil
}

// Open returns the newest migration of a VM, running or ended.
func (c *Client) Open(vmID string) *Migration {
	return &Migration{client: c, WorkflowID: MigrationWorkflowID(vmID)}
}

// Result waits for the end; a failure is an *ErrorReport. The migration does not end with ctx.
func (m *Migration) Result(ctx context.Context) (*Result, error) {
	var result Result
	if err := m.client.temporal.GetWorkflow(ctx, m.WorkflowID, m.RunID).Get(ctx, &result); err != nil {
		return nil, coded(err)
	}
	return &result, nil
}

// Progress asks how far it is.
func (m *Migration) Progress(ctx context.Context) (*Progress, error) {
	value, err := m.client.temporal.QueryWorkflow(ctx, m.WorkflowID, m.RunID, QueryProgress)
	if err != nil {
		return nil, coded(err)
	}
	var progress Progress
	return &progress, value.Get(&progress)
}

// Cancel asks for the roll-back; behind the point of no return the migration completes forward. Of a migration that has ended
// it says MIGRATION_UNKNOWN, as Retry, Abort and SetBandwidthLimit do.
func (m *Migration) Cancel(ctx context.Context) error {
	return coded(m.client.temporal.SignalWorkflow(ctx, m.WorkflowID, m.RunID, SignalCancel, nil))
}

// Retry tries the step that a parked migration waits at again.
func (m *Migration) Retry(ctx context.Context, note string) error {
	return m.update(ctx, UpdateRetryStep, map[string]string{"note": note})
}

// Abort gives a parked migration up and rolls it back.
func (m *Migration) Abort(ctx context.Context, reason string) error {
	return m.update(ctx, UpdateAbortMigration, map[string]string{"reason": reason})
}

// SetBandwidthLimit changes the limit while it runs, in bytes a second; 0 takes it off.
func (m *Migration) SetBandwidthLimit(ctx context.Context, bytesPerSecond float64) error {
	return m.update(ctx, UpdateSetBandwidthLimit, map[string]float64{"bytesPerSecond": bytesPerSecond})
}

func (m *Migration) update(ctx context.Context, name string, argument any) error {
	handle, err := m.client.temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: m.WorkflowID, RunID: m.RunID, UpdateName: name, Args: []any{argument},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return coded(err)
	}
	return coded(handle.Get(ctx, nil))
}

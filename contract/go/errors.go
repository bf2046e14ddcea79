package dwcp

import (
	"errors"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"
)

// ErrorReport is what DWCP says of a failure. Compare Code with docs/errors.md; Message is for people.
type ErrorReport struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Phase   string `json:"phase,omitempty"`
	Side    string `json:"side,omitempty"`
	Hint    string `json:"hint,omitempty"`
	// Because is the code of what it came of, where that has one.
	Because string `json:"because,omitempty"`
}

// Error makes a report an error.
func (r *ErrorReport) Error() string {
	text := "dwcp: " + r.Code + ": " + r.Message
	if r.Hint != "" {
		text += " (" + r.Hint + ")"
	}
	return text
}

// Codes that callers commonly tell apart.
const (
	CodeInvalidInput        = "INVALID_INPUT"
	CodeCancelled           = "CANCELLED"
	CodeMigrationInProgress = "MIGRATION_IN_PROGRESS"
	CodeAlreadyPastReturn   = "ALREADY_PAST_RETURN"
	CodeNotParked           = "NOT_PARKED"
	CodeMigrationUnknown    = "MIGRATION_UNKNOWN"
	CodePayloadUnreadable   = "PAYLOAD_UNREADABLE"
)

// coded finds the report in what Temporal returned; other errors pass as they are.
func coded(err error) error {
	var application *temporal.ApplicationError
	if errors.As(err, &application) {
		report := &ErrorReport{}
		if application.HasDetails() && application.Details(report) == nil && report.Code != "" {
			return report
		}
	}
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &started) {
		return &ErrorReport{Code: CodeMigrationInProgress, Message: "a migration of this VM is open already", Hint: "follow or cancel it"}
	}
	var absent *serviceerror.NotFound
	if errors.As(err, &absent) {
		return &ErrorReport{Code: CodeMigrationUnknown, Message: "the migration has ended, or there is none: " + absent.Error()}
	}
	return err
}

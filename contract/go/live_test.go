package dwcp

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
)

// TestMovesAVM runs against a real server, control worker and agents; test/workflow/go-client.test.ts starts them.
func TestMovesAVM(t *testing.T) {
	address, vm := os.Getenv("DWCP_GO_TEMPORAL"), os.Getenv("DWCP_GO_VM")
	if address == "" {
		t.Skip("SKIPPED: DWCP_GO_TEMPORAL is not set; the workflow tests of the project run this")
	}
	options := client.Options{HostPort: address}
	if path := os.Getenv("DWCP_GO_PAYLOAD_KEY_FILE"); path != "" {
		keys, err := ReadPayloadKeys(path)
		if err != nil {
			t.Fatal(err)
		}
		options = keys.Apply(options)
	}
	temporalClient, err := client.Dial(options)
	if err != nil {
		t.Fatal(err)
	}
	defer temporalClient.Close()
	ctx, stop := context.WithTimeout(context.Background(), 4*time.Minute)
	defer stop()

	dwcp, err := New(temporalClient)
	if err != nil {
		t.Fatal(err)
	}
	limit := 4e6
	request := Request{VMID: vm, SourceHost: os.Getenv("DWCP_GO_SOURCE"), DestinationHost: os.Getenv("DWCP_GO_DESTINATION"), Options: &Options{BandwidthLimit: &limit}}
	migration, err := dwcp.Migrate(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	var report *ErrorReport
	if _, err := dwcp.Migrate(ctx, request); !errors.As(err, &report) || report.Code != CodeMigrationInProgress {
		t.Errorf("a second migration of the same VM got %v", err)
	}
	if err := migration.Retry(ctx, "nothing is wrong"); !errors.As(err, &report) || report.Code != CodeNotParked {
		t.Errorf("a retry of what is not parked got %v", err)
	}
	if err := migration.SetBandwidthLimit(ctx, 0); err != nil {
		t.Error(err)
	}
	progress, err := migration.Progress(ctx)
	if err != nil || progress.VMID != vm {
		t.Errorf("progress: %+v, %v", progress, err)
	}
	result, err := migration.Result(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if result.Outcome != "completed" || len(result.Images) == 0 || !result.Images[0].Verified {
		t.Errorf("unexpected result: %+v", result)
	}
	for what, err := range map[string]error{"a cancel": migration.Cancel(ctx), "a limit": migration.SetBandwidthLimit(ctx, 1), "a retry": migration.Retry(ctx, "")} {
		if !errors.As(err, &report) || report.Code != CodeMigrationUnknown {
			t.Errorf("%s of what has ended got %v", what, err)
		}
	}
	if _, err := dwcp.Migrate(ctx, Request{VMID: vm, SourceHost: "no spaces please", DestinationHost: request.DestinationHost}); err != nil {
		t.Fatal(err)
	}
	if _, err := dwcp.Open(vm).Result(ctx); !errors.As(err, &report) || report.Code != CodeInvalidInput {
		t.Errorf("a bad request ended with %v", err)
	}
}

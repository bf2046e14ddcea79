package dwcp

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// passesUnchanged reads a golden file into value, refusing fields the struct lacks, and writes it back.
func passesUnchanged(t *testing.T, path string, value any) {
	t.Helper()
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(golden))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	written, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if json.Unmarshal(golden, &want) != nil || json.Unmarshal(written, &got) != nil {
		t.Fatalf("%s is not JSON", path)
	}
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s changes on its way through the Go types:\nwant %v\ngot  %v", path, want, got)
	}
}

func TestGoldenFilesPassThroughUnchanged(t *testing.T) {
	passesUnchanged(t, "testdata/request.json", &Request{})
	passesUnchanged(t, "testdata/result.json", &Result{})
	passesUnchanged(t, "testdata/progress.json", &Progress{})
}

// properties lists the names that a schema knows.
func properties(t *testing.T, path string, at ...string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	for _, name := range at {
		schema = schema["properties"].(map[string]any)[name].(map[string]any)
	}
	return schema["properties"].(map[string]any)
}

func tags(value any) map[string]bool {
	names := map[string]bool{}
	for _, field := range reflect.VisibleFields(reflect.TypeOf(value)) {
		name, _, _ := bytes.Cut([]byte(field.Tag.Get("json")), []byte(","))
		names[string(name)] = true
	}
	return names
}

func TestTypesHaveTheFieldsOfTheSchemas(t *testing.T) {
	for _, pair := range []struct {
		schema map[string]any
		value  any
	}{
		{properties(t, "../schemas/migration-request.json"), Request{}},
		{properties(t, "../schemas/migration-request.json", "options"), Options{}},
		{properties(t, "../schemas/migration-result.json"), Result{}},
		{properties(t, "../schemas/migration-result.json", "plan"), Plan{}},
		{properties(t, "../schemas/migration-result.json", "link"), Link{}},
		{properties(t, "../schemas/migration-result.json", "guest"), GuestResult{}},
		{properties(t, "../schemas/image-progress.json", "guest"), GuestProgress{}},
		{properties(t, "../schemas/migration-progress.json"), Progress{}},
		{properties(t, "../schemas/image-progress.json"), ImageProgress{}},
		{properties(t, "../schemas/error-report.json"), ErrorReport{}},
	} {
		known := tags(pair.value)
		for name := range pair.schema {
			if !known[name] {
				t.Errorf("%T lacks %s", pair.value, name)
			}
			delete(known, name)
		}
		for name := range known {
			t.Errorf("%T has %s, which the schema lacks", pair.value, name)
		}
	}
}

func TestNamesAreThoseOfTheContract(t *testing.T) {
	text, err := os.ReadFile("../names.json")
	if err != nil {
		t.Fatal(err)
	}
	var names struct {
		ControlQueue        string            `json:"controlQueue"`
		HostQueue           string            `json:"hostQueue"`
		Workflows           map[string]string `json:"workflows"`
		MigrationWorkflowID string            `json:"migrationWorkflowId"`
		WarmWorkflowID      string            `json:"warmWorkflowId"`
		Messages            map[string]string `json:"messages"`
		SearchAttributes    map[string]string `json:"searchAttributes"`
		ErrorCodes          []string          `json:"errorCodes"`
	}
	if err := json.Unmarshal(text, &names); err != nil {
		t.Fatal(err)
	}
	for want, got := range map[string]string{
		names.ControlQueue:                  ControlQueue,
		names.HostQueue:                     HostQueue("HOST"),
		names.Workflows["migrateVm"]:        WorkflowMigrateVM,
		names.Workflows["warmBaseline"]:     WorkflowWarmBaseline,
		names.MigrationWorkflowID:           MigrationWorkflowID("VM"),
		names.WarmWorkflowID:                WarmWorkflowID("VM", "HOST"),
		names.Messages["progressQuery"]:     QueryProgress,
		names.Messages["cancelSignal"]:      SignalCancel,
		names.Messages["retryStep"]:         UpdateRetryStep,
		names.Messages["abortMigration"]:    UpdateAbortMigration,
		names.Messages["setBandwidthLimit"]: UpdateSetBandwidthLimit,
	} {
		if want != got {
			t.Errorf("the contract says %q, the Go client %q", want, got)
		}
	}
	keys := map[string]bool{}
	for _, name := range []string{
		AttributeVMID.GetName(), AttributeMigrationID.GetName(), AttributeSourceHost.GetName(), AttributeDestinationHost.GetName(),
		AttributeMigrationPhase.GetName(), AttributeMigrationMode.GetName(), AttributeNeedsOperator.GetName(), AttributeMigrationPriority.GetName(),
	} {
		keys[name] = true
	}
	for name := range names.SearchAttributes {
		if !keys[name] {
			t.Errorf("no key for search attribute %s", name)
		}
	}
	codes := map[string]bool{}
	for _, code := range names.ErrorCodes {
		codes[code] = true
	}
	for _, code := range []string{CodeInvalidInput, CodeCancelled, CodeMigrationInProgress, CodeAlreadyPastReturn, CodeNotParked, CodeMigrationUnknown} {
		if !codes[code] {
			t.Errorf("%s is no code of DWCP", code)
		}
	}
}

func TestStartOptionsAskForOneMigrationPerVM(t *testing.T) {
	nine := 9
	options := StartOptions(Request{VMID: "web-7", Options: &Options{Priority: &nine}})
	if options.ID != "migrate-vm:web-7" || options.TaskQueue != ControlQueue || !options.WorkflowExecutionErrorWhenAlreadyStarted {
		t.Errorf("unexpected start options: %+v", options)
	}
	if options.Priority.PriorityKey != 1 {
		t.Errorf("priority 9 should be Temporal's 1, not %d", options.Priority.PriorityKey)
	}
}

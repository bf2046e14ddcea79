package dwcp

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

func keysOf(t *testing.T, content string) *PayloadKeys {
	t.Helper()
	keys, err := parsePayloadKeys([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

const firstKey, secondKey = "0101010101010101010101010101010101010101010101010101010101010101", "0202020202020202020202020202020202020202020202020202020202020202"

func TestRotatedKeysDecryptWhatEitherHasEncrypted(t *testing.T) {
	old, both, other := keysOf(t, firstKey), keysOf(t, secondKey+" # new\n"+firstKey+"\n"), keysOf(t, secondKey)
	sealed, err := old.DataConverter().ToPayload(map[string]string{"vmId": "web-7"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(sealed.Data), "web-7") {
		t.Error("the payload is plain")
	}
	var value map[string]string
	if err := both.DataConverter().FromPayload(sealed, &value); err != nil || value["vmId"] != "web-7" {
		t.Errorf("got %v, %v", value, err)
	}
	var report *ErrorReport
	if _, err := other.Decode([]*commonpb.Payload{sealed}); !errors.As(err, &report) || report.Code != CodePayloadUnreadable {
		t.Errorf("a key that is not there: %v", err)
	}
	sealed.Data[20] ^= 1
	if _, err := both.Decode([]*commonpb.Payload{sealed}); !errors.As(err, &report) || report.Code != CodePayloadUnreadable {
		t.Errorf("a changed payload: %v", err)
	}
}

// test/unit/payload-codec.test.ts reads the same file, which TypeScript has written.
func TestOpensWhatTypeScriptHasSealed(t *testing.T) {
	text, err := os.ReadFile("testdata/sealed-payload.json")
	if err != nil {
		t.Fatal(err)
	}
	var sealed commonpb.Payload
	if err := protojson.Unmarshal(text, &sealed); err != nil {
		t.Fatal(err)
	}
	var value map[string]string
	if err := keysOf(t, firstKey).DataConverter().FromPayload(&sealed, &value); err != nil || value["vmId"] != "web-7" {
		t.Errorf("got %v, %v", value, err)
	}
}

func TestKeyFilesThatOthersMayReadAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(firstKey), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPayloadKeys(path); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPayloadKeys(path); err == nil {
		t.Error("a file that others may read was taken")
	}
	for _, bad := range []string{"", "# none\n", "abcd", firstKey + "\n12"} {
		if _, err := parsePayloadKeys([]byte(bad)); err == nil {
			t.Errorf("%q was taken for keys", bad)
		}
	}
}

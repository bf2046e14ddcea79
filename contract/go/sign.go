package dwcp

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Signer signs requests with an operator's key: hosts do what a signed request, and a warrant of the control plane for it, say.
type Signer struct{ key ed25519.PrivateKey }

// TrustDir is DWCP_TRUST_DIR, or ~/.local/share/dwcp/trust.
func TrustDir() string {
	if folder := os.Getenv("DWCP_TRUST_DIR"); folder != "" {
		return folder
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "share", "dwcp", "trust")
}

// LoadSigner reads operator.key of a trust folder; nil where there is none.
func LoadSigner(folder string) (*Signer, error) {
	path := filepath.Join(folder, "operator.key")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is no Ed25519 key", path)
	}
	return &Signer{key: key}, nil
}

type signedRequest struct {
	Mode            string `json:"mode"`
	MigrationID     string `json:"migrationId"`
	VMID            string `json:"vmId,omitempty"`
	SourceHost      string `json:"sourceHost,omitempty"`
	DestinationHost string `json:"destinationHost,omitempty"`
	IssuedAtMs      int64  `json:"issuedAtMs"`
}

// The format is src/trust/signed-text.ts's: base64url(JSON) "." base64url(signature over "dwcp request 1\n" and that text).
func (s *Signer) sign(request signedRequest) (string, error) {
	request.IssuedAtMs = time.Now().UnixMilli()
	body, err := json.Marshal(request)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(body)
	signature := ed25519.Sign(s.key, []byte("dwcp request 1\n"+text))
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func (s *Signer) signRequest(workflow string, request *Request) (err error) {
	if request.MigrationID == "" {
		if request.MigrationID, err = newMigrationID(); err != nil {
			return err
		}
	}
	mode := "migrate"
	if workflow == WorkflowWarmBaseline {
		mode = "warm"
	}
	request.Authorisation, err = s.sign(signedRequest{
		Mode: mode, MigrationID: request.MigrationID, VMID: request.VMID,
		SourceHost: request.SourceHost, DestinationHost: request.DestinationHost,
	})
	return err
}

// A migration has to have an id before it can be signed.
func newMigrationID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]), nil
}

package dwcp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"
)

const (
	encryptedEncoding = "binary/encrypted"
	keyIDMetadata     = "encryption-key-id"
	maxPayloadKeys    = 16
)

type payloadKey struct {
	id   string
	aead cipher.AEAD
}

// PayloadKeys encrypt what Temporal keeps, as the option payloadKeyFile of agents and control worker: the first encrypts,
// all of them decrypt.
type PayloadKeys struct{ keys []payloadKey }

// ReadPayloadKeys reads a payloadKeyFile: 32 bytes, or a line for each key (64 hexadecimal digits, or base64), readable by
// its owner alone.
func ReadPayloadKeys(path string) (*PayloadKeys, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("payloadKeyFile %s may be read by others: chmod 600 %s", path, path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parsePayloadKeys(content)
}

func parsePayloadKeys(content []byte) (*PayloadKeys, error) {
	var keys []payloadKey
	add := func(raw []byte) error {
		block, err := aes.NewCipher(raw)
		if err != nil {
			return err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return err
		}
		id := sha256.Sum256(append([]byte("dwcp payload key id"), raw...))
		keys = append(keys, payloadKey{hex.EncodeToString(id[:])[:16], aead})
		return nil
	}
	if len(content) == 32 {
		return &PayloadKeys{keys}, add(content)
	}
	for _, line := range strings.Split(string(content), "\n") {
		text, _, _ := strings.Cut(line, "#")
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		raw, err := hex.DecodeString(text)
		if err != nil {
			raw, err = base64.StdEncoding.DecodeString(text)
		}
		if err != nil || len(raw) != 32 {
			return nil, errors.New("payloadKeyFile holds a line that is neither 64 hexadecimal digits nor 32 bytes as base64")
		}
		if err := add(raw); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 || len(keys) > maxPayloadKeys {
		return nil, fmt.Errorf("payloadKeyFile holds %d keys; it takes 1 to %d", len(keys), maxPayloadKeys)
	}
	return &PayloadKeys{keys}, nil
}

// Encode makes the keys a converter.PayloadCodec.
func (k *PayloadKeys) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	if len(k.keys) == 0 {
		return payloads, nil
	}
	sealed := make([]*commonpb.Payload, len(payloads))
	for i, payload := range payloads {
		text, err := proto.Marshal(payload)
		if err != nil {
			return nil, err
		}
		key := k.keys[0]
		nonce := make([]byte, key.aead.NonceSize())
		if _, err := rand.Read(nonce); err != nil {
			return nil, err
		}
		sealed[i] = &commonpb.Payload{
			Metadata: map[string][]byte{converter.MetadataEncoding: []byte(encryptedEncoding), keyIDMetadata: []byte(key.id)},
			Data:     key.aead.Seal(nonce, nonce, text, boundTo(key.id)),
		}
	}
	return sealed, nil
}

// Decode makes the keys a converter.PayloadCodec. What is not encrypted passes.
func (k *PayloadKeys) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	opened := make([]*commonpb.Payload, len(payloads))
	for i, payload := range payloads {
		opened[i] = payload
		if string(payload.GetMetadata()[converter.MetadataEncoding]) != encryptedEncoding {
			continue
		}
		text, err := k.open(string(payload.Metadata[keyIDMetadata]), payload.GetData())
		if err != nil {
			return nil, err
		}
		opened[i] = &commonpb.Payload{}
		if err := proto.Unmarshal(text, opened[i]); err != nil {
			return nil, &ErrorReport{Code: CodePayloadUnreadable, Message: "a payload in Temporal is encrypted, and none behind that"}
		}
	}
	return opened, nil
}

func (k *PayloadKeys) open(id string, data []byte) ([]byte, error) {
	for _, key := range k.keys {
		if key.id != id {
			continue
		}
		if size := key.aead.NonceSize(); len(data) > size {
			if text, err := key.aead.Open(nil, data[:size], data[size:], boundTo(id)); err == nil {
				return text, nil
			}
		}
		return nil, &ErrorReport{Code: CodePayloadUnreadable, Message: fmt.Sprintf("a payload in Temporal does not open with the key %s that it names: it was changed", id)}
	}
	return nil, &ErrorReport{Code: CodePayloadUnreadable, Message: fmt.Sprintf("a payload in Temporal is encrypted with the key %.40q, which this process has not been given", id)}
}

// boundTo says what opens a sealed text, and so is bound to it.
func boundTo(id string) []byte { return []byte("dwcp payload " + id) }

// DataConverter is Temporal's default one behind the keys.
func (k *PayloadKeys) DataConverter() converter.DataConverter {
	return converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), k)
}

// Apply has a client encrypt what it sends and decrypt what it gets, failures with their messages included.
func (k *PayloadKeys) Apply(options client.Options) client.Options {
	options.DataConverter = k.DataConverter()
	options.FailureConverter = temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter:          options.DataConverter,
		EncodeCommonAttributes: true,
	})
	return options
}

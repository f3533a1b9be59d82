package awskms_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

const (
	account = "111122223333"
	prefix  = "arn:aws:kms:eu-central-1:" + account + ":"
	alias   = prefix + "alias/crm-kek"
)

// server speaks the JSON protocol of KMS, for the actions that the package uses.
// Keys are real AES-256-GCM keys, the encryption context is their associated data.
type server struct {
	mu      sync.Mutex
	keys    map[string]*serverKey // by id
	aliases map[string]string     // name to key id
	calls   map[string]int

	hang       *hang             // requests wait until their client gives up
	down       bool              // every request fails
	deny       string            // an action that is forbidden
	ignoreAD   bool              // a KMS that does not bind the context
	otherKey   string            // names this key in its answers
	unseen     int               // so many requests that name the newest key find nothing
	lag        int               // so many calls by alias still use the key before the newest
	undated    bool              // does not say when keys are deleted
	lostAnswer string            // an action that is done, but whose answer is lost
	before     map[string]func() // runs ahead of an action, unlocked
}

type serverKey struct {
	ID, Policy, Description string
	Tags                    []map[string]string
	Origin, State           string
	MultiRegion             bool
	Deletion                time.Time
	aead                    cipher.AEAD
}

// hang is what becomes of a request that waits.
type hang struct {
	come  func()
	ended chan<- struct{}
}

func newServer(t *testing.T) (*server, *kms.Client) {
	t.Helper()
	s, client, stop := startServer()
	t.Cleanup(stop)
	return s, client
}

func startServer() (s *server, client *kms.Client, stop func()) {
	s = &server{keys: map[string]*serverKey{}, aliases: map[string]string{}, calls: map[string]int{}, before: map[string]func(){}}
	first := s.newKey("the policy", "keys of the CRM", append(tagged("alias/crm-kek"), map[string]string{"TagKey": "team", "TagValue": "crm"}, map[string]string{"TagKey": "aws:stack", "TagValue": "x"}))
	s.aliases["alias/crm-kek"] = first.ID
	s.aliases["alias/crm-kek-other/1"] = s.newKey("", "somebody else's", nil).ID
	listener := httptest.NewServer(s)
	return s, s.client(listener.URL), listener.Close
}

func (s *server) client(url string) *kms.Client {
	// The SDK closes a request's body as soon as the answer begins; if not all of it has been read by
	// then, its reader fails and with it the connection. Nobody tries again here, so each request
	// is read into one buffer before any of it is sent.
	transport := &http.Transport{WriteBufferSize: 64 << 10}
	// The secret is as long as AWS's are: shorter ones sign nothing where FIPS 140-3 is enforced.
	return kms.New(kms.Options{
		HTTPClient: &http.Client{Transport: transport},
		Region:     "eu-central-1", BaseEndpoint: &url, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", strings.Repeat("s3cret42", 5), ""),
	})
}

func (s *server) newKey(policy, description string, tags []map[string]string) *serverKey {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	block, _ := aes.NewCipher(secret)
	aead, _ := cipher.NewGCMWithRandomNonce(block)
	id := fmt.Sprintf("00000000-0000-0000-0000-%012d", len(s.keys)+1)
	s.keys[id] = &serverKey{ID: id, Policy: policy, Description: description, Tags: tags, Origin: "AWS_KMS", State: "Enabled", aead: aead}
	return s.keys[id]
}

// tagged are the tags of keys behind an alias.
func tagged(alias string) []map[string]string {
	return []map[string]string{{"TagKey": "crmguard-kek", "TagValue": alias}}
}

func (s *server) count(action string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[action]
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

type request struct {
	KeyId, AliasName, TargetKeyId, Policy, PolicyName, Description, Marker string //nolint:revive // names of the protocol
	Plaintext, CiphertextBlob                                              []byte
	EncryptionContext                                                      map[string]string
	Tags                                                                   []map[string]string
	PendingWindowInDays                                                    int
}

type fault string

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	action, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	if !ok || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" ||
		!strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/") {
		http.Error(w, "not the protocol", http.StatusBadRequest)
		return
	}
	var in request
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.calls[action]++
	hang, before, down, denied, lost := s.hang, s.before[action], s.down, s.deny == action, s.lostAnswer == action
	s.mu.Unlock()
	if hang != nil {
		hang.come()
		<-r.Context().Done()
		hang.ended <- struct{}{}
		return
	}
	if before != nil {
		before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var answer any
	f := fault("AccessDeniedException")
	if !denied {
		answer, f = s.do(action, in)
	}
	if answer, ok := answer.(map[string]any); ok && s.undated {
		delete(answer, "DeletionDate")
		if metadata, ok := answer["KeyMetadata"].(map[string]any); ok {
			delete(metadata, "DeletionDate")
		}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	switch {
	case down, lost:
		w.WriteHeader(http.StatusInternalServerError)
		answer = map[string]string{"__type": "KMSInternalException", "message": "try later"}
	case f != "":
		w.WriteHeader(http.StatusBadRequest)
		answer = map[string]string{"__type": string(f), "message": "no"}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// find resolves ARNs, ids and aliases.
func (s *server) find(name string) (*serverKey, fault) {
	name = strings.TrimPrefix(name, prefix)
	id := strings.TrimPrefix(name, "key/")
	byAlias := strings.HasPrefix(name, "alias/")
	if byAlias {
		id = s.aliases[name]
	}
	newest := s.newest()
	if s.unseen > 0 && id == newest {
		s.unseen--
		return nil, "NotFoundException"
	}
	if byAlias && s.lag > 0 && id == newest {
		s.lag--
		id = s.aliases["alias/crm-kek/1"]
	}
	if key := s.keys[id]; key != nil {
		return key, ""
	}
	return nil, "NotFoundException"
}

func (s *server) newest() string { return slices.Max(slices.Collect(maps.Keys(s.keys))) }

func (s *server) do(action string, in request) (any, fault) {
	switch action {
	case "CreateKey":
		return map[string]any{"KeyMetadata": metadata(s.newKey(in.Policy, in.Description, in.Tags))}, ""
	case "ListAliases":
		return s.listAliases(in), ""
	case "Decrypt":
		return s.decrypt(in)
	case "CreateAlias", "UpdateAlias":
		_, exists := s.aliases[in.AliasName]
		if exists == (action == "CreateAlias") {
			return nil, map[bool]fault{true: "AlreadyExistsException", false: "NotFoundException"}[exists]
		}
		key, f := s.find(in.TargetKeyId)
		if f == "" {
			s.aliases[in.AliasName] = key.ID
		}
		return map[string]any{}, f
	}
	key, f := s.find(in.KeyId)
	if f != "" {
		return nil, f
	}
	switch action {
	case "Encrypt":
		if key.State != "Enabled" {
			return nil, "KMSInvalidStateException"
		}
		blob := key.aead.Seal([]byte(key.ID), nil, in.Plaintext, s.ad(in))
		return map[string]any{"KeyId": s.name(key), "CiphertextBlob": blob}, ""
	case "DescribeKey":
		return map[string]any{"KeyMetadata": metadata(key)}, ""
	case "GetKeyPolicy":
		return map[string]any{"Policy": key.Policy, "PolicyName": in.PolicyName}, ""
	case "ListResourceTags":
		return map[string]any{"Tags": key.Tags, "Truncated": false}, ""
	case "ScheduleKeyDeletion":
		if key.State == "PendingDeletion" {
			return nil, "KMSInvalidStateException"
		}
		key.State, key.Deletion = "PendingDeletion", time.Now().AddDate(0, 0, in.PendingWindowInDays)
		return map[string]any{"KeyId": key.ID, "DeletionDate": float64(key.Deletion.UnixMilli()) / 1000, "KeyState": key.State}, ""
	}
	return nil, "UnknownOperationException"
}

// listAliases returns one alias a page.
func (s *server) listAliases(in request) any {
	names := slices.Sorted(maps.Keys(s.aliases))
	i := 0
	if in.Marker != "" {
		i = slices.Index(names, in.Marker)
	}
	page := map[string]any{"Truncated": i+1 < len(names), "Aliases": []map[string]string{{"AliasName": names[i], "AliasArn": prefix + names[i], "TargetKeyId": s.aliases[names[i]]}}}
	if i+1 < len(names) {
		page["NextMarker"] = names[i+1]
	}
	return page
}

func (s *server) decrypt(in request) (any, fault) {
	const idSize = 36
	if len(in.CiphertextBlob) < idSize || s.keys[string(in.CiphertextBlob[:idSize])] == nil {
		return nil, "InvalidCiphertextException"
	}
	key := s.keys[string(in.CiphertextBlob[:idSize])]
	if in.KeyId != "" {
		named, f := s.find(in.KeyId)
		if f != "" {
			return nil, f
		}
		if named != key {
			return nil, "IncorrectKeyException"
		}
	}
	if key.State != "Enabled" {
		return nil, "KMSInvalidStateException"
	}
	plaintext, err := key.aead.Open(nil, nil, in.CiphertextBlob[idSize:], s.ad(in))
	if err != nil {
		return nil, "InvalidCiphertextException"
	}
	return map[string]any{"KeyId": s.name(key), "Plaintext": plaintext}, ""
}

func (s *server) ad(in request) []byte {
	if s.ignoreAD {
		return nil
	}
	ad, _ := json.Marshal(in.EncryptionContext) // sorted by name
	return ad
}

func (s *server) name(key *serverKey) string {
	if s.otherKey != "" {
		return s.otherKey
	}
	return prefix + "key/" + key.ID
}

func metadata(k *serverKey) map[string]any {
	m := map[string]any{
		"KeyId": k.ID, "Arn": prefix + "key/" + k.ID, "AWSAccountId": account, "Description": k.Description, "KeyManager": "CUSTOMER",
		"Origin": k.Origin, "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT", "KeyState": k.State, "MultiRegion": k.MultiRegion,
	}
	if !k.Deletion.IsZero() {
		m["DeletionDate"] = float64(k.Deletion.UnixMilli()) / 1000
	}
	return m
}

package gcpkms_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	ring    = "projects/crm/locations/europe-west3/keyRings/crm/cryptoKeys/"
	keyName = ring + "kek"
)

// server speaks the gRPC protocol of Cloud KMS, for the methods that the package uses.
// Keys are real AES-256-GCM keys; checksums are verified as KMS does.
type server struct {
	kmspb.UnimplementedKeyManagementServiceServer

	mu    sync.Mutex
	keys  map[string]*serverKey
	calls map[string]int

	hang        *hang                 // requests wait until their client gives up
	fail        map[string]codes.Code // methods that fail; "" is all
	failOnce    codes.Code
	ignoreAD    bool                                         // a KMS that does not bind the associated data
	answer      func(answer any)                             // changes answers on their way
	lag         int                                          // so many encryptions by the key still use the version before the primary
	generations int                                          // new versions are pending for so many looks
	generated   kmspb.CryptoKeyVersion_CryptoKeyVersionState // what becomes of new versions
}

type serverKey struct {
	primary  int
	versions []*serverVersion
}

type serverVersion struct {
	*kmspb.CryptoKeyVersion
	aead cipher.AEAD
}

// hang is what becomes of a request that waits.
type hang struct {
	come  func()
	ended chan<- struct{}
}

func newServer(t *testing.T) (*server, *kms.KeyManagementClient) {
	t.Helper()
	s, client, stop, err := startServer(t.Context())
	require.NoError(t, err)
	t.Cleanup(stop)
	return s, client
}

func startServer(ctx context.Context) (s *server, client *kms.KeyManagementClient, stop func(), err error) {
	s = &server{keys: map[string]*serverKey{}, calls: map[string]int{}, fail: map[string]codes.Code{}, generated: kmspb.CryptoKeyVersion_ENABLED}
	for _, name := range []string{"kek", "kek2"} {
		s.keys[ring+name] = &serverKey{primary: 1}
		s.add(ring + name)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
	kmspb.RegisterKeyManagementServiceServer(g, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(listener) })
	client, err = kms.NewKeyManagementClient(ctx, option.WithEndpoint(listener.Addr().String()), option.WithoutAuthentication(),
		option.WithTelemetryDisabled(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	return s, client, func() {
		if client != nil {
			_ = client.Close()
		}
		g.Stop()
		wg.Wait()
	}, err
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *server) intercept(ctx context.Context, in any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]
	s.mu.Lock()
	s.calls[method]++
	hang := s.hang
	s.mu.Unlock()
	if hang != nil {
		hang.come()
		<-ctx.Done()
		hang.ended <- struct{}{}
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range []string{"", method} {
		if code, ok := s.fail[key]; ok {
			return nil, status.Error(code, "no")
		}
	}
	if s.failOnce != codes.OK {
		code := s.failOnce
		s.failOnce = codes.OK
		return nil, status.Error(code, "later")
	}
	out, err := handler(ctx, in)
	if err != nil {
		return nil, err
	}
	out = proto.Clone(out.(proto.Message)) // it is sent when others may change the original
	if s.answer != nil {
		s.answer(out)
	}
	return out, nil
}

func (s *server) add(key string) *serverVersion {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	block, _ := aes.NewCipher(secret)
	aead, _ := cipher.NewGCMWithRandomNonce(block)
	k := s.keys[key]
	v := &serverVersion{&kmspb.CryptoKeyVersion{
		Name: key + "/cryptoKeyVersions/" + strconv.Itoa(len(k.versions)+1), State: kmspb.CryptoKeyVersion_ENABLED,
	}, aead}
	k.versions = append(k.versions, v)
	return v
}

// find returns a key, and the version that its name ends with, if any.
func (s *server) find(name string) (*serverKey, *serverVersion, error) {
	name, number, versioned := strings.Cut(name, "/cryptoKeyVersions/")
	key := s.keys[name]
	n, _ := strconv.Atoi(number)
	if key == nil || versioned && (n < 1 || n > len(key.versions)) {
		return nil, nil, status.Error(codes.NotFound, "no such key")
	}
	if !versioned {
		return key, nil, nil
	}
	return key, key.versions[n-1], nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(b, castagnoli)))
}

func verify(sum *wrapperspb.Int64Value, b []byte) error {
	if sum == nil || sum.GetValue() != checksum(b).GetValue() {
		return status.Error(codes.InvalidArgument, "The checksum did not match the data.")
	}
	return nil
}

func (s *server) ad(b []byte) []byte {
	if s.ignoreAD {
		return nil
	}
	return b
}

func (s *server) Encrypt(_ context.Context, in *kmspb.EncryptRequest) (*kmspb.EncryptResponse, error) {
	key, version, err := s.find(in.GetName())
	if err != nil {
		return nil, err
	}
	if version == nil {
		n := key.primary
		if s.lag > 0 {
			s.lag--
			n--
		}
		version = key.versions[n-1]
	}
	if version.GetState() != kmspb.CryptoKeyVersion_ENABLED {
		return nil, status.Error(codes.FailedPrecondition, version.GetName()+" is not enabled")
	}
	for sum, b := range map[*wrapperspb.Int64Value][]byte{in.GetPlaintextCrc32C(): in.GetPlaintext(), in.GetAdditionalAuthenticatedDataCrc32C(): in.GetAdditionalAuthenticatedData()} {
		if err := verify(sum, b); err != nil {
			return nil, err
		}
	}
	n := version.GetName()[strings.LastIndex(version.GetName(), "/")+1:]
	number, _ := strconv.ParseUint(n, 10, 32)
	blob := binary.BigEndian.AppendUint32(nil, uint32(number))
	blob = version.aead.Seal(blob, nil, in.GetPlaintext(), s.ad(in.GetAdditionalAuthenticatedData()))
	return &kmspb.EncryptResponse{
		Name: version.GetName(), Ciphertext: blob, CiphertextCrc32C: checksum(blob),
		VerifiedPlaintextCrc32C: true, VerifiedAdditionalAuthenticatedDataCrc32C: true,
	}, nil
}

func (s *server) Decrypt(_ context.Context, in *kmspb.DecryptRequest) (*kmspb.DecryptResponse, error) {
	key, version, err := s.find(in.GetName())
	if err != nil {
		return nil, err
	}
	if version != nil {
		return nil, status.Error(codes.InvalidArgument, "decryption names a key, not a version")
	}
	blob := in.GetCiphertext()
	for sum, b := range map[*wrapperspb.Int64Value][]byte{in.GetCiphertextCrc32C(): blob, in.GetAdditionalAuthenticatedDataCrc32C(): in.GetAdditionalAuthenticatedData()} {
		if err := verify(sum, b); err != nil {
			return nil, err
		}
	}
	wrong := status.Error(codes.InvalidArgument, "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
	if len(blob) < 4 {
		return nil, wrong
	}
	n := int64(binary.BigEndian.Uint32(blob))
	if n < 1 || n > int64(len(key.versions)) {
		return nil, wrong
	}
	version = key.versions[n-1]
	if version.GetState() != kmspb.CryptoKeyVersion_ENABLED {
		return nil, status.Error(codes.FailedPrecondition, version.GetName()+" is not enabled")
	}
	plaintext, err := version.aead.Open(nil, nil, blob[4:], s.ad(in.GetAdditionalAuthenticatedData()))
	if err != nil {
		return nil, wrong
	}
	return &kmspb.DecryptResponse{Plaintext: plaintext, PlaintextCrc32C: checksum(plaintext)}, nil
}

func (s *server) CreateCryptoKeyVersion(_ context.Context, in *kmspb.CreateCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	if _, _, err := s.find(in.GetParent()); err != nil {
		return nil, err
	}
	version := s.add(in.GetParent())
	version.State = kmspb.CryptoKeyVersion_PENDING_GENERATION
	return version.CryptoKeyVersion, nil
}

func (s *server) GetCryptoKeyVersion(_ context.Context, in *kmspb.GetCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	_, version, err := s.find(in.GetName())
	if err != nil {
		return nil, err
	}
	if s.generations--; s.generations < 0 && version.GetState() == kmspb.CryptoKeyVersion_PENDING_GENERATION {
		version.State = s.generated
	}
	return version.CryptoKeyVersion, nil
}

func (s *server) UpdateCryptoKeyPrimaryVersion(_ context.Context, in *kmspb.UpdateCryptoKeyPrimaryVersionRequest) (*kmspb.CryptoKey, error) {
	key, version, err := s.find(in.GetName() + "/cryptoKeyVersions/" + in.GetCryptoKeyVersionId())
	if err != nil {
		return nil, err
	}
	if version.GetState() != kmspb.CryptoKeyVersion_ENABLED {
		return nil, status.Error(codes.FailedPrecondition, "not enabled")
	}
	key.primary, _ = strconv.Atoi(in.GetCryptoKeyVersionId())
	return &kmspb.CryptoKey{Name: in.GetName(), Primary: version.CryptoKeyVersion}, nil
}

func (s *server) GetCryptoKey(_ context.Context, in *kmspb.GetCryptoKeyRequest) (*kmspb.CryptoKey, error) {
	key, _, err := s.find(in.GetName())
	if err != nil {
		return nil, err
	}
	return &kmspb.CryptoKey{Name: in.GetName(), Primary: key.versions[key.primary-1].CryptoKeyVersion}, nil
}

// ListCryptoKeyVersions returns one version a page.
func (s *server) ListCryptoKeyVersions(_ context.Context, in *kmspb.ListCryptoKeyVersionsRequest) (*kmspb.ListCryptoKeyVersionsResponse, error) {
	key, _, err := s.find(in.GetParent())
	if err != nil {
		return nil, err
	}
	i, _ := strconv.Atoi(in.GetPageToken())
	page := &kmspb.ListCryptoKeyVersionsResponse{CryptoKeyVersions: []*kmspb.CryptoKeyVersion{key.versions[i].CryptoKeyVersion}}
	if i+1 < len(key.versions) {
		page.NextPageToken = strconv.Itoa(i + 1)
	}
	return page, nil
}

func (s *server) DestroyCryptoKeyVersion(_ context.Context, in *kmspb.DestroyCryptoKeyVersionRequest) (*kmspb.CryptoKeyVersion, error) {
	_, version, err := s.find(in.GetName())
	if err != nil {
		return nil, err
	}
	if st := version.GetState(); st != kmspb.CryptoKeyVersion_ENABLED && st != kmspb.CryptoKeyVersion_DISABLED {
		return nil, status.Error(codes.FailedPrecondition, "cannot be destroyed")
	}
	version.State = kmspb.CryptoKeyVersion_DESTROY_SCHEDULED
	version.DestroyTime = timestamppb.New(time.Now().Add(24 * time.Hour))
	return version.CryptoKeyVersion, nil
}

package encrypttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

// faulty is a key file that neglects one duty.
type faulty struct {
	encrypt.RotatingKEK
	encrypt    func(ctx context.Context, plaintext, associatedData []byte) ([]byte, error)
	decrypt    func(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error)
	rotate     func(ctx context.Context) error
	destroyOld func(ctx context.Context) (time.Time, error)
}

func (f *faulty) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	return f.encrypt(ctx, plaintext, associatedData)
}

func (f *faulty) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	return f.decrypt(ctx, ciphertext, associatedData)
}

func (f *faulty) Rotate(ctx context.Context) error { return f.rotate(ctx) }

func (f *faulty) DestroyOld(ctx context.Context) (time.Time, error) { return f.destroyOld(ctx) }

// faultyFiles plants a fault in each process's view of a key file at path.
func faultyFiles(t *testing.T, plant func(f *faulty, path string)) KEKUnderTest {
	t.Helper()
	open := func(path string) encrypt.RotatingKEK {
		kek, err := encrypt.OpenKeyFile(path, "", true)
		require.NoError(t, err)
		f := &faulty{kek, kek.EncryptWithContext, kek.DecryptWithContext, kek.Rotate, kek.DestroyOld}
		plant(f, path)
		return f
	}
	dir := t.TempDir()
	return KEKUnderTest{
		Open:  func() encrypt.RotatingKEK { return open(dir + "/kek.json") },
		Other: func() encrypt.RotatingKEK { return open(dir + "/other.json") },
	}
}

func TestPlantedFaults(t *testing.T) {
	for _, c := range []struct {
		fault   string
		noticed []int // by these duties, and maybe by more
		plant   func(f *faulty, path string)
	}{
		{"none", nil, func(*faulty, string) {}},
		{"each process has a key of its own", []int{1, 5, 6, 7}, func(f *faulty, path string) {
			own, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
			require.NoError(t, err)
			f.encrypt, f.decrypt = own.EncryptWithContext, own.DecryptWithContext
		}},
		{"associated data is ignored", []int{2}, func(f *faulty, _ string) {
			f.encrypt = func(ctx context.Context, b, _ []byte) ([]byte, error) {
				return f.RotatingKEK.EncryptWithContext(ctx, b, nil)
			}
			f.decrypt = func(ctx context.Context, b, _ []byte) ([]byte, error) {
				return f.RotatingKEK.DecryptWithContext(ctx, b, nil)
			}
		}},
		{"nothing is sealed", []int{1, 3}, func(f *faulty, _ string) {
			f.encrypt = func(_ context.Context, b, _ []byte) ([]byte, error) { return slices.Concat([]byte("seal: "), b), nil }
			f.decrypt = func(_ context.Context, b, _ []byte) ([]byte, error) {
				return bytes.TrimPrefix(b, []byte("seal: ")), nil
			}
		}},
		{"an error tells the plaintext", []int{3}, func(f *faulty, _ string) {
			f.decrypt = func(ctx context.Context, b, ad []byte) ([]byte, error) {
				plaintext, err := f.RotatingKEK.DecryptWithContext(ctx, b, ad)
				if err != nil {
					err = fmt.Errorf("%w: not %q", err, "secret")
				}
				return plaintext, err
			}
		}},
		{"a wrong KEK looks like an outage", []int{2, 4}, func(f *faulty, _ string) {
			f.decrypt = func(ctx context.Context, b, ad []byte) ([]byte, error) {
				plaintext, err := f.RotatingKEK.DecryptWithContext(ctx, b, ad)
				if err != nil {
					err = errors.New("something went wrong")
				}
				return plaintext, err
			}
		}},
		{"Rotate does nothing", []int{8, 10}, func(f *faulty, _ string) {
			f.rotate = func(context.Context) error { return nil }
		}},
		{"Rotate destroys what was there", []int{6, 9}, func(f *faulty, _ string) {
			f.rotate = func(ctx context.Context) error {
				err := f.RotatingKEK.Rotate(ctx)
				_, destroyErr := f.RotatingKEK.DestroyOld(ctx)
				return errors.Join(err, destroyErr)
			}
		}},
		{"processes encrypt with the key that was there when they began", []int{7, 8}, func(f *faulty, path string) {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			copied := t.TempDir() + "/kek.json"
			require.NoError(t, os.WriteFile(copied, content, 0o600))
			old, err := encrypt.OpenKeyFile(copied, "", false)
			require.NoError(t, err)
			f.encrypt = old.EncryptWithContext
		}},
		{"DestroyOld does nothing", []int{8, 9, 10}, func(f *faulty, _ string) {
			f.destroyOld = func(context.Context) (time.Time, error) { return time.Now(), nil }
		}},
		{"DestroyOld never says when", []int{8}, func(f *faulty, _ string) {
			f.destroyOld = func(ctx context.Context) (time.Time, error) {
				_, err := f.RotatingKEK.DestroyOld(ctx)
				return time.Time{}, err
			}
		}},
		{"DestroyOld destroys all", []int{7, 8, 10}, func(f *faulty, _ string) {
			f.destroyOld = func(ctx context.Context) (time.Time, error) {
				if err := f.RotatingKEK.Rotate(ctx); err != nil {
					return time.Time{}, err
				}
				return f.RotatingKEK.DestroyOld(ctx)
			}
		}},
		{"DestroyOld asks for nobody", []int{9}, func(f *faulty, path string) {
			f.destroyOld = func(ctx context.Context) (time.Time, error) {
				now, err := encrypt.OpenKeyFile(path, "", false)
				if err != nil {
					return time.Time{}, err
				}
				return now.DestroyOld(ctx)
			}
		}},
		{"DestroyOld always refuses", []int{7, 8, 9, 10}, func(f *faulty, _ string) {
			f.destroyOld = func(context.Context) (time.Time, error) { return time.Time{}, encrypt.ErrKEKRotated }
		}},
	} {
		t.Run(c.fault, func(t *testing.T) {
			var noticed []int
			for i, duty := range kekDuties {
				k := faultyFiles(t, c.plant)
				if !racetest.Passes(func(t require.TestingT) { duty.check(t, k) }) {
					noticed = append(noticed, i+1)
				}
			}
			require.Subset(t, noticed, c.noticed)
			require.Equal(t, c.noticed == nil, noticed == nil)
		})
	}
}

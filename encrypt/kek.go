package encrypt

import (
	"context"
	"errors"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// RotatingKEK is a KEK whose key can be replaced. [OpenKeyFile] and
// [OpenPassphraseFile] return one, and so do the KMSs' modules.
type RotatingKEK interface {
	tink.AEADWithContext

	// Rotate makes a new key. From now on it encrypts, in all processes that use the
	// KEK; what the older ones encrypted still decrypts. A call of EncryptWithContext
	// that is under way may still use an older one.
	Rotate(ctx context.Context) error

	// DestroyOld destroys all keys but the newest one. What they encrypted and nobody
	// encrypted anew is lost. It returns when the last copy that the KEK itself keeps
	// is gone: at once, or when a KMS's delay is over. It refuses with [ErrKEKRotated]
	// when somebody else has rotated the KEK since this one was opened or last rotated,
	// whichever is later.
	DestroyOld(ctx context.Context) (gone time.Time, err error)
}

// ErrKEKRotated says that old keys of a KEK are not destroyed, because somebody else
// has rotated it meanwhile: what was encrypted anew before that would be lost.
// Rotate, encrypt everything anew, then try again.
var ErrKEKRotated = errors.New("encrypt: somebody else has rotated the key-encryption key")

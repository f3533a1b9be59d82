package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

// vault is the keys folder. It lies outside the data and outside its backups,
// whichever database that is: without it the data opens nowhere.
type vault struct {
	dir      string
	lock     *os.File
	owner    []byte // id of the installation, nil before the first start is over
	store    *encryptsql.Store
	keys     *encrypt.Keyring
	signer   note.Signer
	verifier note.Verifier
}

// journalName is the name of the journal's signing key.
const journalName = "crmguard-example-crm/journal"

// ownerFile names the installation whose keys these are. It is written after the
// data names it too, and before anything else is sealed: a first start that was
// interrupted goes on with keys that nobody owns, and keys that somebody owns are
// never adopted by other data.
const ownerFile = "installation"

// openVault opens the keys folder. Keys are created only for a database in
// which nothing was ever sealed.
func openVault(ctx context.Context, dir string, data *store, o *encrypt.Options) (*vault, error) {
	installation, err := data.setting(ctx, "installation")
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	v := &vault{dir: dir}
	if err := v.open(ctx, data, installation == nil, o); err != nil {
		return nil, errors.Join(err, v.close())
	}
	if err := v.belongs(ctx, data, installation); err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *vault) open(ctx context.Context, data *store, create bool, o *encrypt.Options) error {
	names := []string{"kek.json", "keys.db", "journal.key"}
	if create {
		if err := os.MkdirAll(v.dir, 0o700); err != nil {
			return fmt.Errorf("keys folder: %w", err)
		}
	} else {
		// A missing file must never be replaced by a new one: that would hide the
		// loss until the first row that does not open.
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(v.dir, name)); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("the data in %s was sealed with keys that are not in %s (%s is missing): nothing was changed; put the keys folder back, or name it with -keys",
					data.name, v.dir, name)
			}
		}
	}
	if info, err := os.Stat(v.dir); err != nil {
		return fmt.Errorf("keys folder: %w", err)
	} else if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the keys folder %s can be read by others: chmod 700 it", v.dir)
	}
	var err error
	if v.lock, err = lockFolder(v.dir, "keys"); err != nil {
		return err
	}
	if v.owner, err = os.ReadFile(filepath.Join(v.dir, ownerFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keys folder: %w", err)
	}
	if create && len(v.owner) > 0 {
		return fmt.Errorf("the keys in %s belong to a CRM, but the database in %s is new or was emptied, so that it may not use them: put back a backup of the data or name the right one with %s; for a new CRM name a new keys folder with -keys",
			v.dir, data.name, data.flag)
	}
	kek, err := encrypt.OpenKeyFile(filepath.Join(v.dir, names[0]), data.dir, create)
	if err != nil {
		return err
	}
	if v.store, err = encryptsql.OpenSQLite(ctx, filepath.Join(v.dir, names[1]), create); err != nil {
		return err
	}
	if v.keys, err = encrypt.New(kek, v.store, o); err != nil {
		return err
	}
	if err := v.keys.Check(ctx); err != nil {
		if errors.Is(err, encrypt.ErrWrongKEK) {
			return fmt.Errorf("the key file %s is not the one that made keys.db beside it: %w", filepath.Join(v.dir, names[0]), err)
		}
		return err
	}
	v.signer, v.verifier, err = audit.OpenSigner(filepath.Join(v.dir, names[2]), journalName, create)
	return err
}

// belongs checks that keys and data are of one installation, or makes them so.
func (v *vault) belongs(ctx context.Context, data *store, installation []byte) error {
	if installation == nil {
		installation = []byte(rand.Text())
		if err := v.prove(ctx, data, "installation", installation); err != nil {
			return err
		}
		return v.own(installation)
	}
	_, err := v.proven(ctx, data, "installation")
	if err == nil && v.owner == nil {
		return v.own(installation) // only this was interrupted
	}
	if err == nil && !bytes.Equal(v.owner, installation) {
		err = fmt.Errorf("they say so in the file %s", ownerFile)
	}
	if err != nil {
		return fmt.Errorf("the keys in %s belong to another installation than the data in %s: nothing was changed; name the right folder with -keys (%w)",
			v.dir, data.name, err)
	}
	return nil
}

// prove stores a setting with a MAC, so that nobody else who can write the database
// makes one up. A crash leaves both or none.
func (v *vault) prove(ctx context.Context, data *store, name string, value []byte) error {
	mac, err := v.keys.MAC(ctx, settingPlace(name), value)
	if err != nil {
		return err
	}
	tx, err := data.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to take back
	if err := putSetting(ctx, tx, name, value); err != nil {
		return err
	}
	if err := putSetting(ctx, tx, name+"-mac", mac); err != nil {
		return err
	}
	return tx.Commit()
}

// proven returns a setting that [vault.prove] stored, nil if there is none.
func (v *vault) proven(ctx context.Context, data *store, name string) ([]byte, error) {
	value, err := data.setting(ctx, name)
	if err != nil || value == nil {
		return nil, err
	}
	mac, err := data.setting(ctx, name+"-mac")
	if err != nil {
		return nil, err
	}
	if err := v.keys.Verify(ctx, settingPlace(name), value, mac); err != nil {
		return nil, fmt.Errorf("the setting %s: %w", name, err)
	}
	return value, nil
}

func settingPlace(name string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "settings", Field: name}
}

// current checks that the keys are none of before the last turn, which ended when the
// database says: they would fit each other, and open only part of the data.
func (v *vault) current(ctx context.Context, data *store, turned keyJob) error {
	if turned.Name != turnJob || turned.running() || turned.Failed {
		return nil
	}
	checks, err := v.store.Load(ctx, []encrypt.Scope{{Purpose: encrypt.KEKCheck}})
	if err != nil {
		return err
	}
	if len(checks) > 0 && !checks[len(checks)-1].CreatedAt.Before(turned.Began.Truncate(time.Microsecond)) {
		return nil
	}
	return fmt.Errorf("the keys in %s are an older copy: the data in %s was last turned on %s, and these are from before: nothing was changed; put back the newest copy of the keys folder, or, if there is none, remove the setting %s from the table settings",
		v.dir, data.name, moment(turned.Began, time.Local), jobSetting(turnJob))
}

// own writes whose keys these are, so that a crash leaves the whole file or none.
func (v *vault) own(installation []byte) error {
	if err := writeWhole(filepath.Join(v.dir, ownerFile), installation); err != nil {
		return fmt.Errorf("keys folder: %w", err)
	}
	v.owner = installation
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path) //nolint:gosec // in the keys folder
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (v *vault) close() error {
	var errs []error
	if v.keys != nil {
		errs = append(errs, v.keys.Close())
	}
	if v.store != nil {
		errs = append(errs, v.store.Close())
	}
	if v.lock != nil {
		errs = append(errs, v.lock.Close()) // last: what it protects is closed
	}
	return errors.Join(errs...)
}

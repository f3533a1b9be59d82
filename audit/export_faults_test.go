package audit

import "os"

// Ops are all that a store does to files.
type Ops struct {
	Sync     func(*os.File) error
	SyncDir  func(dir string) error
	WriteAt  func(f *os.File, b []byte, at int64) (int, error)
	Open     func(path string, flag int, mode os.FileMode) (*os.File, error)
	Truncate func(f *os.File, size int64) error
	Rename   func(from, to string) error
	Remove   func(path string) error
	MakeDirs func(path string, mode os.FileMode) error
}

// OpenFileOps opens a store that does everything through o.
func OpenFileOps(dir string, o Ops) (*File, error) {
	return openFile(dir, ops{o.Sync, o.SyncDir, o.WriteAt, o.Open, o.Truncate, o.Rename, o.Remove, o.MakeDirs})
}

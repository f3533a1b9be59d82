package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxPassphrase is far above what anybody types or generates.
const maxPassphrase = 4096

var errPassphraseEmpty = errors.New("the passphrase is empty")

// readPassphrase reads one from a file; from "-" it asks on a terminal, twice if it is a
// new one, and reads all of anything else. A line break at the end is none of it.
func (c *call) readPassphrase(name string, isNew bool) (passphrase []byte, err error) {
	if name != "-" {
		return passphraseFile(name)
	}
	terminal, ok := c.in.(*os.File)
	if !ok || !canHide(terminal) {
		return readAll(c.in)
	}
	if passphrase, err = c.ask(terminal, "Passphrase: "); err != nil || !isNew {
		return passphrase, err
	}
	again, err := c.ask(terminal, "The same again: ")
	if err == nil && !bytes.Equal(passphrase, again) {
		err = errors.New("the two passphrases differ")
	}
	return passphrase, err
}

func passphraseFile(name string) ([]byte, error) {
	file, err := os.Open(name) //nolint:gosec // whoever calls names it
	if err != nil {
		return nil, fmt.Errorf("the passphrase: %w", err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	info, err := file.Stat()
	if err == nil {
		err = private(info, name)
	}
	if err != nil {
		return nil, fmt.Errorf("the passphrase: %w", err)
	}
	return readAll(file)
}

func readAll(in io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxPassphrase+1))
	if err != nil {
		return nil, fmt.Errorf("the passphrase: %w", err)
	}
	if len(text) > maxPassphrase {
		return nil, fmt.Errorf("the passphrase: more than %d bytes; is that the right file?", maxPassphrase)
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if len(text) == 0 {
		return nil, errPassphraseEmpty
	}
	return text, nil
}

// ask reads a line that the terminal does not show. What it does show comes back when the
// call is interrupted, too.
func (c *call) ask(terminal *os.File, prompt string) ([]byte, error) {
	show, err := hide(terminal)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(c.err, prompt)
	line, err := c.readLine()
	fmt.Fprintln(c.err)
	if err := errors.Join(err, show()); err != nil {
		return nil, err
	}
	if len(line) == 0 {
		return nil, errPassphraseEmpty
	}
	return line, nil
}

// readLine reads no more than a line: the next question reads on there.
func (c *call) readLine() ([]byte, error) {
	type answer struct {
		line []byte
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		var line []byte
		for b := []byte{0}; len(line) <= maxPassphrase; {
			n, err := c.in.Read(b)
			if n == 1 && b[0] == '\n' || err == io.EOF && len(line) > 0 {
				break
			}
			if err != nil {
				read <- answer{nil, err}
				return
			}
			line = append(line, b[:n]...)
		}
		read <- answer{bytes.TrimSuffix(line, []byte("\r")), nil}
	}()
	select {
	case <-c.Done():
		return nil, c.Err()
	case a := <-read:
		return a.line, a.err
	}
}

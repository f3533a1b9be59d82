package ipfilter

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"unicode/utf8"
)

// parse reads a document as encode writes it, apart from order of members, space
// and escapes. encoding/json alone would take members twice, in other cases, and
// unknown; here each document has one meaning. It does not verify anything.
func parse(text []byte) (d Document, mac []byte, err error) {
	if len(text) > maxJSON {
		return Document{}, nil, fmt.Errorf("%w: more than %d bytes", errMalformed, maxJSON)
	}
	if !utf8.Valid(text) || !json.Valid(text) {
		return Document{}, nil, fmt.Errorf("%w: not JSON in UTF-8", errMalformed)
	}
	p := &parser{dec: json.NewDecoder(bytes.NewReader(text))}
	p.dec.UseNumber()
	if d, mac, err = p.document(); err == nil {
		_, err = p.dec.Token()
		if errors.Is(err, io.EOF) {
			return d, mac, nil
		}
		err = errors.New("text behind the document")
	}
	return Document{}, nil, fmt.Errorf("%w: %w", errMalformed, err)
}

type parser struct {
	dec      *json.Decoder
	prefixes int
}

func (p *parser) document() (d Document, mac []byte, err error) {
	var format string
	seen, err := p.object(func(name string) (err error) {
		switch name {
		case "format":
			format, err = p.text()
		case "tenant":
			d.Tenant, err = p.text()
		case "version":
			d.Version, err = p.version()
		case "company":
			d.Rules.Company, err = p.list()
		case "roles":
			d.Rules.Roles, err = p.lists()
		case "people":
			d.Rules.People, err = p.lists()
		case "mac":
			mac, err = p.mac()
		default:
			err = errors.New("unknown member")
		}
		return err
	})
	if err != nil {
		return d, nil, err
	}
	for _, name := range []string{"format", "tenant", "version", "mac"} {
		if !seen[name] {
			return d, nil, fmt.Errorf("no %s", name)
		}
	}
	if format != formatV1 {
		return d, nil, errors.New("another format")
	}
	return d, mac, checkName(d.Tenant)
}

// object calls member for each member, whose value it must read.
func (p *parser) object(member func(name string) error) (seen map[string]bool, err error) {
	if err := p.delim('{'); err != nil {
		return nil, err
	}
	seen = map[string]bool{}
	for p.dec.More() {
		name, err := p.text()
		if err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, errors.New("the same name twice")
		}
		seen[name] = true
		if err := member(name); err != nil {
			return nil, err
		}
	}
	return seen, p.delim('}')
}

func (p *parser) lists() (map[string]List, error) {
	lists := map[string]List{}
	_, err := p.object(func(name string) error {
		if err := checkName(name); err != nil {
			return err
		}
		l, err := p.list()
		lists[name] = l
		return err
	})
	if err == nil && len(lists) == 0 {
		err = errors.New("an empty object")
	}
	return lists, err
}

func (p *parser) list() (l List, err error) {
	seen, err := p.object(func(name string) (err error) {
		switch name {
		case "allow":
			l.Allow, err = p.set()
		case "deny":
			l.Deny, err = p.set()
		default:
			err = errors.New("unknown member of a list")
		}
		return err
	})
	if err == nil && len(seen) == 0 {
		err = errors.New("a list that says nothing")
	}
	return l, err
}

// set reads prefixes, which are normal and in order.
func (p *parser) set() ([]netip.Prefix, error) {
	if err := p.delim('['); err != nil {
		return nil, err
	}
	var set []netip.Prefix
	for p.dec.More() {
		text, err := p.text()
		if err != nil {
			return nil, err
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix.String() != text {
			return nil, errors.New("a prefix that is none, or has another spelling")
		}
		if bare, err := barePrefix(prefix); err != nil || bare != prefix {
			return nil, errors.New("a prefix that is not normal")
		}
		if n := len(set); n > 0 && set[n-1].Compare(prefix) >= 0 {
			return nil, errors.New("prefixes out of order, or twice")
		}
		if p.prefixes++; p.prefixes > MaxPrefixes {
			return nil, fmt.Errorf("more than %d prefixes", MaxPrefixes)
		}
		set = append(set, prefix)
	}
	if set == nil {
		return nil, errors.New("an empty list")
	}
	return set, p.delim(']')
}

func (p *parser) delim(want json.Delim) error {
	token, err := p.dec.Token()
	if err != nil {
		return err
	}
	if token != want {
		return fmt.Errorf("want %q", want)
	}
	return nil
}

func (p *parser) text() (string, error) {
	token, err := p.dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := token.(string)
	if !ok {
		return "", errors.New("want a string")
	}
	return s, nil
}

func (p *parser) version() (int64, error) {
	token, err := p.dec.Token()
	if err != nil {
		return 0, err
	}
	number, ok := token.(json.Number)
	if !ok {
		return 0, errors.New("want a number")
	}
	version, err := strconv.ParseInt(number.String(), 10, 64)
	if err != nil || version < 1 || version > maxVersion {
		return 0, errors.New("want a version, an integer from 1")
	}
	return version, nil
}

func (p *parser) mac() ([]byte, error) {
	text, err := p.text()
	if err != nil {
		return nil, err
	}
	mac, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(mac) == 0 || len(mac) > maxMAC || base64.StdEncoding.EncodeToString(mac) != text {
		return nil, errors.New("a MAC that is not base64, or too long")
	}
	return mac, nil
}

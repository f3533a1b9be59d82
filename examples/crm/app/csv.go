package app

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Columns that a file of contacts may have. Every row needs a name; everything
// else may be empty.
var importColumns = []string{"name", "phone", "email", "company", "city", "note", "owner", "department", "country"}

// csvRow is one row of a file by column name, and the line on which it starts.
type csvRow struct {
	line   int
	fields map[string]string
}

// csvError is a row that cannot be read as CSV at all.
type csvError struct {
	line   int
	reason string
	lost   bool // where the next row begins cannot be told: nothing below may be read
}

func (e *csvError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.reason) }

// csvFile reads rows under a header. After a row that is not well-formed it goes on
// with the line below only if no quoted field can reach into that line. Otherwise it
// is lost, and stops: a line of somebody's note must never be taken for a row.
type csvFile struct {
	data    []byte
	lost    bool
	reader  *csv.Reader
	columns []string // by position; "" is a column that nobody wants
}

// ParseMapping reads what `crm import -map` takes: "name=Имя,phone=Телефон".
func ParseMapping(text string) (map[string]string, error) {
	mapping := map[string]string{}
	if strings.TrimSpace(text) == "" {
		return mapping, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		column, header, ok := strings.Cut(pair, "=")
		column, header = strings.TrimSpace(column), strings.TrimSpace(header)
		if !ok || header == "" {
			return nil, fmt.Errorf("mapping %q: want column=header", pair)
		}
		if !slices.Contains(importColumns, column) {
			return nil, fmt.Errorf("mapping %q: the columns are %s", pair, strings.Join(importColumns, ", "))
		}
		mapping[column] = header
	}
	return mapping, nil
}

// openCSV reads the header. The separator is whichever of comma, semicolon and
// tab the header has most of. Columns are found by their own name unless mapping
// gives another header for them.
func openCSV(data []byte, mapping map[string]string) (*csvFile, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	f := &csvFile{data: data, reader: csv.NewReader(bytes.NewReader(data))}
	comma := ','
	header, _, _ := bytes.Cut(data, []byte("\n"))
	if !utf8.Valid(header) {
		return nil, errors.New("the file is not UTF-8: save it as “CSV UTF-8” and try again")
	}
	for _, c := range []rune{';', '\t'} {
		if bytes.Count(header, []byte(string(c))) > bytes.Count(header, []byte(string(comma))) {
			comma = c
		}
	}
	f.reader.Comma, f.reader.FieldsPerRecord = comma, -1
	names, err := f.reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	f.columns = make([]string, len(names))
	found := map[string]bool{}
	for i, name := range names {
		for _, column := range importColumns {
			want := column
			if mapped, ok := mapping[column]; ok {
				want = mapped
			}
			if strings.EqualFold(strings.TrimSpace(name), want) {
				if found[column] {
					return nil, fmt.Errorf("header: two columns are called %q", want)
				}
				f.columns[i], found[column] = column, true
			}
		}
	}
	for column, header := range mapping {
		if !found[column] {
			return nil, fmt.Errorf("header: no column is called %q", header)
		}
	}
	if !found["name"] {
		// What stands there is not repeated: without a header it is somebody's data.
		return nil, errors.New("header: the first line names no column that is called name; say which one it is, as in -map name=Client")
	}
	return f, nil
}

// next returns the next row, a *csvError for one that is malformed, or io.EOF.
func (f *csvFile) next() (csvRow, error) {
	if f.lost {
		return csvRow{}, io.EOF
	}
	start := f.reader.InputOffset()
	values, err := f.reader.Read()
	// Blank lines above the row are skipped by the reader.
	span := bytes.TrimSpace(f.data[start:f.reader.InputOffset()])
	if parseErr, ok := errors.AsType[*csv.ParseError](err); ok {
		f.lost = f.quotes(span)
		return csvRow{}, &csvError{parseErr.StartLine, strings.TrimPrefix(parseErr.Err.Error(), "csv: "), f.lost}
	}
	if err != nil {
		return csvRow{}, err
	}
	line, _ := f.reader.FieldPos(0)
	row := csvRow{line: line, fields: make(map[string]string, len(f.columns))}
	if len(values) != len(f.columns) {
		// Over several lines this is as likely a quote that was closed by another row's.
		f.lost = bytes.ContainsRune(span, '\n')
		return csvRow{}, &csvError{line, fmt.Sprintf("has %d columns, the header has %d", len(values), len(f.columns)), f.lost}
	}
	for i, column := range f.columns {
		if column != "" {
			row.fields[column] = strings.TrimSpace(unguardCell(values[i]))
		}
	}
	return row, nil
}

// quotes says whether a field begins with a quote, and so may go on below.
func (f *csvFile) quotes(span []byte) bool {
	for field := range bytes.SplitSeq(span, []byte(string(f.reader.Comma))) {
		if bytes.HasPrefix(bytes.TrimSpace(field), []byte{'"'}) {
			return true
		}
	}
	return false
}

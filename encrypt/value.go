package encrypt

import (
	"database/sql/driver"
	"encoding/json"
	"reflect"
)

// form is how the values of a field become bytes.
type form uint8

const (
	formText     form = iota + 1 // strings, as they are
	formTextPtr                  // *string: nil is NULL
	formBytes                    // []byte, as it is: nil is NULL
	formNull                     // sql.NullInt64 and the like: the value inside as JSON
	formNullText                 // sql.NullString, sql.Null[string]: the value inside as it is
	formJSON                     // all else
	formValuer                   // as formJSON, where the type may say that it is NULL
)

var (
	bytesType  = reflect.TypeFor[[]byte]()
	valuerType = reflect.TypeFor[driver.Valuer]()
)

func formOf(t reflect.Type) form {
	switch {
	case t.Kind() == reflect.String:
		return formText
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.String:
		return formTextPtr
	case t == bytesType:
		return formBytes
	case t.PkgPath() == "database/sql" && t.Kind() == reflect.Struct && t.NumField() == 2 && t.Field(1).Name == "Valid":
		if t.Field(0).Type.Kind() == reflect.String {
			return formNullText
		}
		return formNull
	case t.Implements(valuerType):
		return formValuer
	}
	return formJSON
}

// isText says whether the sealed bytes are what people read.
func (f form) isText() bool { return f == formText || f == formTextPtr || f == formNullText }

// text returns the value of a field that is text and not NULL.
func (f *fieldPlan) text(row reflect.Value) (text string, ok bool) {
	v := at(row, f.plain)
	switch f.form {
	case formText:
		return v.String(), true
	case formTextPtr:
		if !v.IsNil() {
			return v.Elem().String(), true
		}
	case formNullText:
		if v.Field(1).Bool() {
			return v.Field(0).String(), true
		}
	}
	return "", false
}

// encode returns what is sealed for a value that is not text; nil for NULL.
func (f *fieldPlan) encode(row reflect.Value) ([]byte, error) {
	v := at(row, f.plain)
	switch f.form {
	case formText, formTextPtr, formNullText:
		return nil, nil // NULL: see text
	case formBytes:
		return v.Bytes(), nil
	case formNull:
		if !v.Field(1).Bool() {
			return nil, nil
		}
		v = v.Field(0)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		if v.IsNil() {
			return nil, nil
		}
	}
	if f.form == formValuer {
		if value, err := v.Interface().(driver.Valuer).Value(); err != nil || value == nil {
			return nil, err
		}
	}
	return json.Marshal(v.Addr().Interface()) // decode has the pointer's methods, too
}

// decode is the inverse of text and encode for a value that is not NULL.
func (f *fieldPlan) decode(row reflect.Value, plaintext []byte) error {
	v := at(row, f.plain)
	switch f.form {
	case formText:
		v.SetString(string(plaintext))
		return nil
	case formTextPtr:
		s := reflect.New(v.Type().Elem())
		s.Elem().SetString(string(plaintext))
		v.Set(s)
		return nil
	case formBytes:
		v.SetBytes(plaintext)
		return nil
	case formNullText:
		v.Field(0).SetString(string(plaintext))
		v.Field(1).SetBool(true)
		return nil
	case formNull:
		v.Field(1).SetBool(true)
		v = v.Field(0)
	}
	return json.Unmarshal(plaintext, v.Addr().Interface())
}

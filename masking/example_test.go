package masking_test

import (
	"fmt"

	"github.com/crmguard/crmguard/masking"
)

func ExampleMask() {
	fmt.Println(masking.Mask(masking.Phone, "+7 (916) 123-45-67"))
	fmt.Println(masking.Mask(masking.Email, "anna@example.org"))
	fmt.Println(masking.Mask(masking.Name, "Анна Петрова"))
	fmt.Println(masking.Mask(masking.Card, "4111 1111 1111 1111"))
	fmt.Println(masking.Mask(masking.Text, "second phone 8 916 123-45-67, budget 1 500 000"))
	fmt.Println(masking.Mask(masking.Phone, "ask Anna"))
	// Output:
	// +7 ••• 67
	// a•••@•••.org
	// А••• П•••
	// ••• 1111
	// second phone •••, budget 1 500 000
	// •••
}

// Rights have two halves. A field that somebody may not read is emptied before
// View, and a field that somebody may not unmask is masked by it. The rights come
// from where the host keeps them, such as rbac.Engine.Fields.
func ExampleView() {
	type Contact struct {
		ID    string `mask:"-"`
		Name  string `mask:"name"`
		Phone string `mask:"phone"`
	}
	type rights struct{ Read, Unmask bool }
	contact := Contact{"17", "Анна Петрова", "+7 916 123-45-67"}
	roles := map[string]map[string]rights{
		"guest":  {"name": {Read: true}},
		"seller": {"name": {Read: true, Unmask: true}, "phone": {Read: true}},
		"owner":  {"name": {Read: true, Unmask: true}, "phone": {Read: true, Unmask: true}},
	}

	for _, role := range []string{"guest", "seller", "owner"} {
		may, readable := roles[role], contact
		for field, value := range map[string]*string{"name": &readable.Name, "phone": &readable.Phone} {
			if !may[field].Read {
				*value = ""
			}
		}
		shown, err := masking.View(readable, func(field string) bool { return may[field].Unmask })
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s %q\n", role, shown)
	}
	// Output:
	// guest {"17" "А••• П•••" ""}
	// seller {"17" "Анна Петрова" "+7 ••• 67"}
	// owner {"17" "Анна Петрова" "+7 916 123-45-67"}
}

func ExampleRefuseMasked() {
	type Contact struct {
		Name  string `mask:"name"`
		Phone string `mask:"phone"`
	}
	edited := Contact{Name: "Анна Смирнова", Phone: "+7 ••• 67"} // the form sent the mask back
	fmt.Println(masking.RefuseMasked(edited))
	// Output: masking: field phone holds a mask, not a value
}

func ExampleIsMasked() {
	fmt.Println(masking.IsMasked("+7 ••• 67"), masking.IsMasked("• call back\n• send the offer"))
	// Output: true false
}

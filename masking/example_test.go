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

// A seller sees the phones of the list masked; who may unmask them sees them.
// The function that View asks is where the rights come in, such as
// rbac.Engine.Fields.
func ExampleView() {
	type Contact struct {
		ID    string `mask:"-"`
		Name  string `mask:"name"`
		Phone string `mask:"phone"`
	}
	contact := Contact{"17", "Анна Петрова", "+7 916 123-45-67"}
	unmask := map[string]map[string]bool{"seller": {"name": true}, "owner": {"name": true, "phone": true}}

	for _, role := range []string{"guest", "seller", "owner"} {
		shown, err := masking.View(contact, func(field string) bool { return unmask[role][field] })
		if err != nil {
			panic(err)
		}
		fmt.Println(role, shown)
	}
	// Output:
	// guest {17 А••• П••• +7 ••• 67}
	// seller {17 Анна Петрова +7 ••• 67}
	// owner {17 Анна Петрова +7 916 123-45-67}
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

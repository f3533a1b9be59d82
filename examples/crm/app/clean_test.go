package app

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCleanPhone(t *testing.T) {
	for _, test := range []struct{ typed, country, want string }{
		{"8 (903) 750-77-28 доб. 12", "RU", "+79037507728 ext. 12"},
		{"тел. 8 999 880-39-76", "RU", "+79998803976"},
		{"9250596145", "", "+79250596145"},
		{"(702) 555-0122 ext 12", "US", "+17025550122 ext. 12"},
		{"8 (096) 001-34-74", "UA", "+380960013474"},
		{"0950436681", "UA", "+380950436681"},
		{"8 (029) 788-52-53", "BY", "+375297885253"},
		{"07700 900997", "GB", "+447700900997"},
		{"+49 (0)89 99998273", "DE", "+498999998273"},
		{"", "RU", ""},
	} {
		got, err := cleanPhone(test.typed, test.country)
		require.NoError(t, err, test.typed)
		require.Equal(t, test.want, got, test.typed)
		if got != "" { // what was stored is accepted again, as it comes back from the form
			again, err := cleanPhone(got, test.country)
			require.NoError(t, err)
			require.Equal(t, got, again)
			again, err = cleanPhone(showPhone(got), test.country)
			require.NoError(t, err)
			require.Equal(t, got, again)
		}
	}
	for _, typed := range []string{"12", "1-800-FLOWERS", "дом 5", "+7 ••• 67", "8 916 123-45-67 8 916 123-45-68"} {
		_, err := cleanPhone(typed, "RU")
		require.Error(t, err, typed)
	}
}

func TestCleanContact(t *testing.T) {
	good := func() *Contact {
		return &Contact{Name: " Анна  ", Phone: "8 916 123-45-67", Email: "anna@example.org"}
	}
	c := good()
	c.City = strings.Repeat("ы", 100)
	require.NoError(t, c.clean())
	require.Equal(t, "Анна", c.Name)
	require.Equal(t, "+79161234567", c.Phone)

	for name, test := range map[string]struct {
		spoil func(*Contact)
		says  string
	}{
		"no name":           {func(c *Contact) { c.Name = " " }, "name: is needed"},
		"invisible name":    {func(c *Contact) { c.Name = "\u200b\u2060\u00ad \u3164\u115f\u2800\u0301" }, "name: is needed"},
		"not UTF-8":         {func(c *Contact) { c.Company = "\xc0\xd0" }, "company: holds characters that are not valid UTF-8"},
		"control character": {func(c *Contact) { c.City = "a\x00b" }, "city: holds control characters"},
		"line in a name":    {func(c *Contact) { c.Name = "a\nb" }, "name: holds control characters"},
		"two addresses":     {func(c *Contact) { c.Email = "a@example.org, b@example.org" }, "email: is not an e-mail address"},
		"address with name": {func(c *Contact) { c.Email = "A <a@example.org>" }, "email: is not an e-mail address"},
		"no domain":         {func(c *Contact) { c.Email = "a@localhost" }, "email: is not an e-mail address"},
		"no country":        {func(c *Contact) { c.Country = "Россия" }, "country: is not a country code such as RU or DE"},
		"turned name":       {func(c *Contact) { c.Name = "Anna \u202egro.elpmaxe" }, "name: holds characters that turn the direction of writing"},
		"isolated company":  {func(c *Contact) { c.Company = "\u2066Works\u2069" }, "company: holds characters that turn the direction of writing"},
		"marked address":    {func(c *Contact) { c.Email = "\u200fanna@example.org" }, "email: holds characters that turn the direction of writing"},
		"starred address":   {func(c *Contact) { c.Email = "a***@gmail.com" }, "email: is hidden behind signs such as ***: the real value is needed"},
		"starred name":      {func(c *Contact) { c.Name = "A●●● P▪▪▪" }, "name: is hidden behind signs such as ***: the real value is needed"},
		"mask in a note":    {func(c *Contact) { c.Note = "call •••" }, "note: is hidden behind signs such as ***: the real value is needed"},
		"long":              {func(c *Contact) { c.City = strings.Repeat("ы", 101) }, "city: is longer than 100 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			test.spoil(c)
			require.ErrorContains(t, c.clean(), test.says)
		})
	}
}

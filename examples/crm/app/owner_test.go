package app

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhoCanBeResponsible: contacts go to open employees, and to their department,
// from the form and from a file alike.
func TestWhoCanBeResponsible(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(3))
		owner, head := in.signedIn("owner"), in.signedIn("head")
		mine, closed := in.idOf(0), in.idOf(2)
		status, _ := owner.post("/staff/seller5/dismiss")
		require.Equal(t, http.StatusOK, status)

		_, form := owner.get("/contacts/" + mine + "/edit")
		has(t, form, `<option value="seller3"`)
		hasNot(t, form, `<option value="seller5"`, "who is closed")
		hasNot(t, form, `<option value="integration"`, "a program")
		for _, nobody := range []string{"seller5", "integration", "stranger"} {
			status, page := owner.post("/contacts/"+mine+"/edit", "version", "1", "owner", nobody)
			require.Equal(t, http.StatusUnprocessableEntity, status, nobody)
			has(t, page, "You cannot make this person responsible")
			status, _ = owner.post("/contacts/new", "name", "New", "owner", nobody)
			require.Equal(t, http.StatusUnprocessableEntity, status, nobody)
		}
		status, page := owner.post("/contacts/"+closed+"/edit", "version", "1", "name", "Renamed", "owner", "seller5")
		require.Equal(t, http.StatusOK, status, "who is responsible already stays so")
		has(t, page, "Renamed")

		// A head gives away what is hers, to her own people, and nothing else.
		status, _ = head.post("/contacts/"+mine+"/edit", "version", "1", "owner", "owner")
		require.Equal(t, http.StatusUnprocessableEntity, status, "out of the department")
		status, _ = head.post("/contacts/"+closed+"/edit", "version", "2", "owner", "seller1")
		require.Equal(t, http.StatusNotFound, status, "out of another department")
		status, page = head.post("/contacts/"+mine+"/edit", "version", "1", "owner", "seller3")
		require.Equal(t, http.StatusOK, status)
		has(t, page, "Sales / North", "the department follows the person")

		file := "name,owner,department\nA,seller5,\nB,integration,\nC,seller1,Support\nD,seller3,Sales\nE,seller1,Sales\nF,seller3,\nG,,Support\n"
		report, err := in.app.Import(in.importing(), []byte(file), nil, nil)
		require.NoError(t, err)
		require.Equal(t, 3, report.Added)
		require.Equal(t, []BadRow{
			{2, "owner: no open employee has this login"},
			{3, "owner: no open employee has this login"},
			{4, "department: is not that of the owner"}, {5, "department: is not that of the owner"},
		}, report.Bad)
	})
}

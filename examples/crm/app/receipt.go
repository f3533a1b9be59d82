package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/guard"
)

// erasedPage is what erased.html shows.
type erasedPage struct {
	ID, Owner, Unit     string
	Erased              time.Time
	Receipt             *receiptView
	Now                 bool
	MayJournal, MayFile bool // MayFile: have the receipt, with all that it lists
}

// receiptView is a receipt as pages show it.
type receiptView struct {
	encrypt.Receipt
	Contact string   // whose card the viewer may open, or ""
	Others  []string // duplicates that the viewer may open
	Hidden  int      // and how many there are besides
}

// receipts is who may have receipts and check them.
var receipts = sectionOf("receipts")

// showErased shows what is left of an erased client: that there was one, and how far
// the erasure has come.
func (a *App) showErased(w http.ResponseWriter, r *http.Request, c *Contact) error {
	receipt, err := a.vault.keys.Receipt(r.Context(), tenant, c.ID)
	if err != nil {
		return err
	}
	body := erasedPage{
		ID: c.ID, Owner: c.Owner, Unit: a.people.unitName(c.Unit), Erased: c.Erased,
		Now:        r.URL.Query().Has("forgotten"),
		MayJournal: a.may(r, crmguard.Access, sectionOf("journal")),
		MayFile:    a.may(r, crmguard.Access, receipts),
	}
	if !body.MayFile { // who took what, and whom else the client resembles, is not everybody's to know
		receipt.Copies, receipt.Duplicates = nil, nil
	}
	if body.Receipt, err = a.receiptView(r, receipt); err != nil {
		return err
	}
	return a.render(w, http.StatusOK, "erased", a.page(r, "Erased client", false, body))
}

func (a *App) receiptView(r *http.Request, receipt encrypt.Receipt) (*receiptView, error) {
	view := &receiptView{Receipt: receipt}
	for _, id := range append([]string{receipt.Client}, receipt.Duplicates...) {
		c, err := a.db.contact(r.Context(), id)
		if err != nil && !errors.Is(err, errNoContact) {
			return nil, err
		}
		visible := err == nil && a.may(r, crmguard.View, c.resource())
		switch {
		case id == receipt.Client && visible:
			view.Contact = id
		case id == receipt.Client:
		case visible:
			view.Others = append(view.Others, id)
		default:
			view.Hidden++
		}
	}
	return view, nil
}

// downloadReceipt sends the receipt as it is to be kept: byte by byte as it will be
// checked.
func (a *App) downloadReceipt(w http.ResponseWriter, r *http.Request) error {
	if err := a.guard.Check(r.Context(), crmguard.Access, receipts); err != nil {
		return err
	}
	c := stateOf(r.Context()).contact
	receipt, err := a.vault.keys.Receipt(r.Context(), tenant, c.ID)
	if errors.Is(err, encrypt.ErrNotErased) {
		return guard.ErrNotFound
	}
	if err != nil {
		return err
	}
	document, err := json.Marshal(receipt)
	if err != nil {
		return err
	}
	sendFile(w, "application/json", "receipt-"+c.ID+".json", document)
	return nil
}

// receiptsPage is what receipts.html shows.
type receiptsPage struct {
	Verdict *verdict
	Says    *receiptView
	Now     *receiptView // what the receipt says today, if that is something else
	Problem string
}

func (a *App) receiptsPage(w http.ResponseWriter, r *http.Request) error {
	return a.render(w, http.StatusOK, "receipts", a.page(r, "Check a receipt", false, receiptsPage{}))
}

// receiptCheck is what a request to check a receipt is about.
func receiptCheck(r *http.Request) (crmguard.Resource, error) {
	guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = "check-receipt" })
	return receipts, nil
}

// maxReceipt is far above a receipt that lists many copies.
const maxReceipt = 1 << 20

const receiptRoute = "POST /receipts/check"

// checkReceipt says whether an uploaded receipt is one that this CRM has issued, what
// it says, and what has changed since.
func (a *App) checkReceipt(w http.ResponseWriter, r *http.Request) error {
	var view receiptsPage
	status := http.StatusOK
	document, err := uploadedReceipt(r)
	if err != nil {
		return err
	}
	if len(document) == 0 {
		view.Problem, status = "Choose the file of a receipt first: one that the CRM let you download.", http.StatusUnprocessableEntity
	} else if err := a.judgeReceipt(r, document, &view); err != nil {
		return err
	}
	return a.render(w, status, "receipts", a.page(r, "Check a receipt", false, view))
}

func uploadedReceipt(r *http.Request) ([]byte, error) {
	part, err := uploadedPart(r, "receipt")
	if err != nil {
		return nil, err
	}
	document, err := io.ReadAll(io.LimitReader(part, maxReceipt+1))
	if err != nil {
		return nil, unreadable()
	}
	if len(document) > maxReceipt {
		_, _ = io.Copy(io.Discard, r.Body) // or browsers say that the line broke instead of why
		return nil, &guard.Problem{Status: http.StatusRequestEntityTooLarge, Title: "This is not a receipt", Code: "file-size",
			Detail: "A receipt has at most " + fileSize(maxReceipt) + ". Choose the file that the CRM let you download: its name begins with receipt and ends in .json."}
	}
	return document, nil
}

func (a *App) judgeReceipt(r *http.Request, document []byte, view *receiptsPage) error {
	ctx := r.Context()
	told := func(what string) {
		guard.Describe(ctx, func(e *guard.Details) { e.Reason = "check-receipt:" + what })
	}
	receipt, err := a.vault.keys.CheckReceipt(ctx, document)
	if _, foreign := errors.AsType[*crmguard.Denial](err); foreign || errors.Is(err, encrypt.ErrReceipt) {
		told("refused")
		view.Verdict = &verdict{Class: "bad", Title: "This is not a receipt of this CRM as it was issued",
			Text: "It was changed, if only by one character or by being formatted anew, or it is another installation's. Nothing that it says can be relied on. Ask for the file as it was downloaded."}
		return nil
	}
	if err != nil {
		return err
	}
	told("genuine")
	if view.Says, err = a.receiptView(r, receipt); err != nil {
		return err
	}
	view.Verdict, view.Now, err = a.compareReceipt(r, receipt)
	return err
}

// compareReceipt says what a genuine receipt is worth today.
func (a *App) compareReceipt(r *http.Request, receipt encrypt.Receipt) (*verdict, *receiptView, error) {
	good := &verdict{Class: "good", Title: "The receipt is genuine", Text: "This CRM has issued it, and not one character of it was changed. It still says what is true today."}
	now, err := a.vault.keys.Receipt(r.Context(), receipt.Tenant, receipt.Client)
	if errors.Is(err, encrypt.ErrNotErased) {
		return &verdict{Class: "bad", Title: "The receipt is genuine, but the client is not erased any more",
			Text: fmt.Sprintf("An older copy of the keys and of the data was put back. Open the contact %s and forget it again.", receipt.Client)}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if same, err := sameReceipt(receipt, now); err != nil || same {
		return good, nil, err
	}
	view, err := a.receiptView(r, now)
	good.Text = "This CRM has issued it, and not one character of it was changed. What it says has changed since: keep the newer one as well."
	return good, view, err
}

func sameReceipt(x, y encrypt.Receipt) (bool, error) {
	x.MAC, y.MAC = nil, nil
	one, err := json.Marshal(x)
	if err != nil {
		return false, err
	}
	other, err := json.Marshal(y)
	return bytes.Equal(one, other), err
}

// eraseKey closes the client's key, and says on the receipt which files outside of the
// CRM may hold the client.
func (a *App) eraseKey(ctx context.Context, c *Contact) (encrypt.Receipt, error) {
	copies, err := a.db.outsideCopies(ctx, c)
	if err != nil {
		return encrypt.Receipt{}, err
	}
	receipt, err := a.vault.keys.Erase(ctx, tenant, c.ID, copies...)
	if err != nil {
		return receipt, err
	}
	_, err = a.journal.Forget(ctx, tenant, c.ID) // and again when the key is destroyed
	return receipt, err
}

package audit

import "fmt"

// VerifyError says that something was not done, because the journal does not verify:
// what would be written over it or taken out of it could not be relied on.
type VerifyError struct{ Report Report }

// Error tells the verdict.
func (e *VerifyError) Error() string {
	return fmt.Sprintf("the journal does not verify: %s at entry %d: %s", e.Report.Verdict, e.Report.At, e.Report.Detail)
}

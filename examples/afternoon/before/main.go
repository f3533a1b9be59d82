// Command before is a CRM as many are: whoever reaches the port has the whole
// client base, and so has whoever gets the file. docs/guides/afternoon.md protects
// it step by step; what comes out is the command after.
package main

import (
	"database/sql"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	_ "modernc.org/sqlite" // driver "sqlite"
)

// Contact is a client.
type Contact struct {
	ID    string `json:"id"`
	Owner string `json:"owner"`
	Name  string `json:"name"`
	Phone string `json:"phone"`
}

func main() {
	db, err := sql.Open("sqlite", "file:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: "127.0.0.1:8090", Handler: routes(db), ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func routes(db *sql.DB) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /contacts/{id}", func(w http.ResponseWriter, r *http.Request) {
		var c Contact
		err := db.QueryRowContext(r.Context(), `SELECT id, owner, name, phone FROM contacts WHERE id = $1`, r.PathValue("id")).
			Scan(&c.ID, &c.Owner, &c.Name, &c.Phone)
		if err != nil {
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(c)
	})
	return mux
}

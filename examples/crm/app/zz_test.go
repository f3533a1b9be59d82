package app
import ("testing";"os";"context";"log/slog")
func TestZZ(t *testing.T){
 b,_:=os.ReadFile("../data/contacts.csv")
 d,_:=os.MkdirTemp("","z"); defer os.RemoveAll(d)
 a,err:=New(context.Background(),Config{Data:d+"/data",Keys:d+"/keys",Loopback:true,Contacts:b[:400000],Logger:slog.New(slog.DiscardHandler)})
 if err!=nil{t.Fatal(err)}
 a.Close()
}

package auditsql_test

func child() {}

package guardgin

import (
	_ "github.com/crmguard/crmguard/guard"
	_ "github.com/gin-gonic/gin"
)

"""Names of the public documents, each with its version."""

SEARCH_SCHEMA = "autopar/search/1"
ESTIMATE_SCHEMA = "autopar/estimate/1"
IMPROVE_SCHEMA = "autopar/improve/1"
EMIT_SCHEMA = "autopar/emit/1"

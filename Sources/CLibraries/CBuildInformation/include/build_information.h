#pragma once

// Commit that this software was built from, as PDSERVE_COMMIT said while it was built; otherwise an
// empty text. Lives as long as the process.
const char *_Nonnull build_commit(void);

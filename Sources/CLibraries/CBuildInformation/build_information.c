#include "build_information.h"

// A file of its own: another commit compiles nothing else anew.
#ifndef PDSERVE_COMMIT
#define PDSERVE_COMMIT ""
#endif

const char *build_commit(void) { return PDSERVE_COMMIT; }

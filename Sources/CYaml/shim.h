// libyaml, the C library: its event parser gives lines and columns for every error.
#include <yaml.h>

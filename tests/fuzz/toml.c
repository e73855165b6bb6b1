// SPDX-License-Identifier: GPL-2.0-or-later
/* Any bytes are a configuration, or have errors that stand in order within the file. */
#include "config.h"

#include <errno.h>
#include <string.h>

static void check_errors(const struct config_errors *errors, size_t size)
{
	int line = 1;

	if (!errors->n)
		abort();
	for (size_t i = 0; i < errors->n; i++) {
		const struct config_error *error = &errors->items[i];
		bool is_note = i == CONFIG_ERRORS_MAX;

		if (!error->message || !*error->message)
			abort();
		if (!is_note && (error->line < line || (size_t)error->line > size + 1 ||
				 error->column < 1 || (size_t)error->column > size + 1))
			abort();
		line = error->line;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config_errors errors = {0};
	struct config *config = NULL;
	int r = config_parse((const char *)data, size, &config, &errors);

	if (!r != (config != NULL) || (r && r != -EINVAL))
		abort();
	if (r)
		check_errors(&errors, size);
	else if (errors.n)
		abort();
	config_errors_clear(&errors);
	config_free(config);
	return 0;
}

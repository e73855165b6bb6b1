# Compiler and linker flags, by option. A preset chooses the options.
add_compile_options(-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
	-Wwrite-strings -Wvla -Wformat=2 -Wno-unused-parameter -fno-strict-aliasing -fno-common)
add_compile_definitions(_GNU_SOURCE _FILE_OFFSET_BITS=64 FWD_VERSION="${PROJECT_VERSION}")

if(FWD_WERROR)
	add_compile_options(-Werror)
endif()

if(FWD_SANITIZE)
	add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined
		-fno-omit-frame-pointer)
	add_link_options(-fsanitize=address,undefined)
endif()

if(FWD_HARDEN)
	add_compile_options(-fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE)
	add_compile_definitions($<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
	add_link_options(-pie -Wl,-z,relro,-z,now,-z,noexecstack)
endif()

if(FWD_FUZZ)
	add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# fwd_bpf_object(NAME): compiles NAME.bpf.c with clang for the kernel.
# fwd_bpf_skeleton(NAME FOLDER FLAG...): the same into FOLDER of the build, and makes NAME.skel.h of it.
#
# UAPI headers only: no vmlinux.h, so that one object loads on every kernel from 5.10 on.
find_program(FWD_CLANG NAMES clang REQUIRED)
find_program(FWD_BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin REQUIRED)

set(FWD_BPF_FLAGS -target bpf -mcpu=v3 -O2 -g -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter
	-fno-stack-protector -I${CMAKE_SOURCE_DIR}/bpf)
if(CMAKE_LIBRARY_ARCHITECTURE)
	list(APPEND FWD_BPF_FLAGS -idirafter /usr/include/${CMAKE_LIBRARY_ARCHITECTURE})
endif()

function(fwd_compile_bpf name object)
	set(source ${CMAKE_CURRENT_SOURCE_DIR}/${name}.bpf.c)
	add_custom_command(OUTPUT ${object}
		COMMAND ${FWD_CLANG} ${FWD_BPF_FLAGS} ${ARGN} -MD -MF ${object}.d -MT ${object} -c ${source} -o ${object}
		DEPENDS ${source}
		DEPFILE ${object}.d
		COMMENT "clang -target bpf ${name}.bpf.c"
		VERBATIM)
endfunction()

function(fwd_bpf_object name)
	fwd_compile_bpf(${name} ${CMAKE_CURRENT_BINARY_DIR}/${name}.bpf.o)
endfunction()

function(fwd_bpf_skeleton name folder)
	set(object ${CMAKE_CURRENT_BINARY_DIR}/${folder}/${name}.bpf.o)
	set(skeleton ${CMAKE_CURRENT_BINARY_DIR}/${folder}/${name}.skel.h)
	file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/${folder})
	fwd_compile_bpf(${name} ${object} ${ARGN})
	add_custom_command(OUTPUT ${skeleton}
		COMMAND ${FWD_BPFTOOL} gen skeleton ${object} name ${name}_bpf > ${skeleton}
		DEPENDS ${object}
		COMMENT "bpftool gen skeleton ${name}"
		VERBATIM)
endfunction()

# Instructions per request by module and source file, of two profiles of callgrind: a short run and a long one.
#
#     awk -v requests=N -v top=DIRECTORY -f modules.awk SHORT LONG
#
# N is the number of requests that the long run has more, DIRECTORY the repository. What only one of the runs has (start
# and end) cancels out. Format: https://valgrind.org/docs/manual/cl-format.html; a name is written at its first use, as
# `(7) name`, afterwards as `(7)`.

# The name behind the `=`, of one of the three kinds that are numbered on their own.
function name(kind,    text, end) {
    text = substr($0, index($0, "=") + 1)
    end = index(text, ")")
    if (substr(text, 1, 1) != "(") return text
    if (length(text) > end) names[run, kind, substr(text, 1, end)] = substr(text, end + 2)
    return names[run, kind, substr(text, 1, end)]
}

# The module of a source file: of the repository the folder below src, of others the library.
function module(file, object,    path) {
    path = file
    if (path == "???" || path == "") {
        sub(/.*\//, "", object)
        sub(/[-.].*/, "", object)
        return object == "" ? "unknown" : object
    }
    if (path ~ /\/registry\/src\//) {
        sub(/.*\/registry\/src\/[^\/]*\//, "", path)
        sub(/-[0-9].*/, "", path)
        return path
    }
    if (path ~ /^\/rustc\// || path ~ /\/library\/(core|alloc|std)\//) return "std"
    if (substr(path, 1, length(top) + 1) == top "/") path = substr(path, length(top) + 2)
    if (path ~ /^src\//) {
        sub(/^src\//, "", path)
        sub(/\/.*|\.rs$/, "", path)
        return path
    }
    if (path ~ /^proto\//) return "proto"
    if (path ~ /^tools\//) {
        match(path, /^tools\/[^\/]*/)
        return substr(path, 1, RLENGTH)
    }
    sub(/.*\//, "", object)
    sub(/[-.].*/, "", object)
    return object
}

FNR == 1 { run++; file = object = "" }
/^ob=/ { object = name("ob"); next }
/^(fl|fi|fe)=/ { file = name("fl"); next }
/^fn=/ { name("fn"); next }
/^cob=/ { name("ob"); next }
/^(cfi|cfl)=/ { name("fl"); next }
/^cfn=/ { name("fn"); next }
# The line below holds the callee's cost, which is counted at the callee.
/^calls=/ { getline; next }
/^[-+*0-9]/ {
    cost = (run == 1 ? -$2 : $2)
    total += cost
    by_file[file] += cost
    by_module[module_of(file, object)] += cost
}

function module_of(file, object) {
    if (!((file, object) in modules)) modules[file, object] = module(file, object)
    return modules[file, object]
}

END {
    if (run != 2 || requests <= 0) exit 1
    printf "instructions %.0f\n", total / requests
    for (one in by_module)
        if (by_module[one] / requests >= 0.5) printf "module %.0f %s\n", by_module[one] / requests, one
    for (one in by_file)
        if (by_file[one] / requests >= 0.5 && index(one, top "/") == 1 && index(one, top "/target/") != 1)
            printf "file %.0f %s\n", by_file[one] / requests, substr(one, length(top) + 2)
}

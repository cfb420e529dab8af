module goruntime

go 1.21

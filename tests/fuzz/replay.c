/*
 * Runs a fuzzer's function over the files that it is given: for compilers without libFuzzer.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int count, char **paths)
{
    static uint8_t room[1 << 16];

    for (int i = 1; i < count; i++) {
        FILE *file = fopen(paths[i], "rb");
        size_t size;
        uint8_t *exact;

        if (file == NULL) {
            perror(paths[i]);
            return 1;
        }
        size = fread(room, 1, sizeof room, file);
        fclose(file);
        exact = malloc(size + 1);
        for (size_t at = 0; at < size; at++)
            exact[at] = room[at];
        fprintf(stderr, "%s\n", paths[i]);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    return 0;
}

/* The variadic functions of the module API. They unpack their arguments as the format says and pass them on as a list. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* `string` is null unless the argument is a string of the server. */
typedef struct {
    const char *start;
    size_t length;
    void *string;
} Argument;

enum { MOST = 1100, FLAGS = 16 };

extern int simulated_replicate(void *ctx, const char *command, const Argument *args, size_t count, const char *flags);
extern void *simulated_call(void *ctx, const char *command, const Argument *args, size_t count, const char *flags);
extern void simulated_log(const char *level, const char *line);

/* In decimal, as printf would. Returns the length. */
static size_t write_number(char *place, long long number) {
    char digits[24];
    size_t at = sizeof digits, length = 0;
    unsigned long long left = number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number;
    do digits[--at] = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0) place[length++] = '-';
    memcpy(place + length, digits + at, sizeof digits - at);
    return length + sizeof digits - at;
}

/* Returns the number of arguments. `flags` gets the letters that stand for none. */
static size_t unpack(const char *format, va_list from, Argument *args, char *numbers, char *flags) {
    size_t count = 0, digits = 0, letters = 0;
    for (const char *letter = format ? format : ""; *letter; letter++) {
        Argument one = {NULL, 0, NULL};
        switch (*letter) {
        case 's':
            one.string = va_arg(from, void *);
            break;
        case 'c':
            one.start = va_arg(from, const char *);
            one.length = strlen(one.start);
            break;
        case 'b':
            one.start = va_arg(from, const char *);
            one.length = va_arg(from, size_t);
            break;
        case 'l':
            one.start = numbers + digits;
            one.length = write_number(numbers + digits, va_arg(from, long long));
            digits += one.length + 1;
            break;
        case 'v': {
            void **strings = va_arg(from, void **);
            size_t many = va_arg(from, size_t);
            for (size_t at = 0; at < many && count < MOST; at++) args[count++].string = strings[at];
            continue;
        }
        default:
            if (letters < FLAGS - 1) flags[letters++] = *letter;
            continue;
        }
        if (count < MOST) args[count++] = one;
    }
    flags[letters] = 0;
    return count;
}

int simulated_variadic_replicate(void *ctx, const char *command, const char *format, ...) {
    Argument args[16];
    char numbers[128], flags[FLAGS];
    va_list from;
    va_start(from, format);
    size_t count = strlen(format) > 16 ? 0 : unpack(format, from, args, numbers, flags);
    va_end(from);
    return simulated_replicate(ctx, command, args, count, flags);
}

void *simulated_variadic_call(void *ctx, const char *command, const char *format, ...) {
    Argument args[MOST];
    char numbers[128], flags[FLAGS];
    va_list from;
    va_start(from, format);
    size_t count = unpack(format, from, args, numbers, flags);
    va_end(from);
    return simulated_call(ctx, command, args, count, flags);
}

void simulated_variadic_log(void *ctx, const char *level, const char *format, ...) {
    char line[1024];
    (void)ctx;
    va_list from;
    va_start(from, format);
    vsnprintf(line, sizeof line, format, from);
    va_end(from);
    simulated_log(level, line);
}

// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/unit/harness.h"

/* What is there now. */
static void *bound[4];

#define GUARD 0xc7

unsigned char *guarded_buffer(size_t bytes, size_t misalign, unsigned char **allocation)
{
    unsigned char *memory = malloc(misalign + bytes + 1);

    assert_non_null(memory);
    /* Shrunk so that the buffer ends where the allocation does. */
    *allocation = realloc(memory, misalign + bytes + (bytes == 0));
    memset(*allocation, GUARD, misalign);
    return *allocation + misalign;
}

void assert_guarded(const unsigned char *allocation, const unsigned char *buffer)
{
    for (const unsigned char *guard = allocation; guard < buffer; guard++)
        assert_int_equal(*guard, GUARD);
}

void check_done(unsigned times, const unsigned char *buffer, size_t bytes)
{
    if (times != 1)
        model_violation("done() called %u times", times);
    if (bytes != 0 && dma_shown(buffer, bytes) && vdev_master())
        model_violation("C5: done() while the device can still reach the buffer");
}

static uint32_t random_state = 0x2545f491;

uint32_t test_chance(uint32_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % below;
}

static void hung(void)
{
    fail_msg("the driver hangs");
}

static void driver_free(struct binding *binding)
{
    for (unsigned i = 0; i < LENGTH(bound); i++)
        if (bound[i] == binding->driver)
            bound[i] = NULL;
    free(binding->driver);
    binding->driver = NULL;
}

enum result attach(struct binding *binding, const struct test_kind *kind)
{
    vdev_hung = hung;
    *binding = (struct binding){.kind = kind, .driver = malloc(kind->bytes)};
    assert_non_null(binding->driver);
    for (unsigned i = 0; i < LENGTH(bound); i++)
        if (!bound[i]) {
            bound[i] = binding->driver;
            break;
        }
    /* The driver may not count on zeroes. */
    memset(binding->driver, 0xcc, kind->bytes);

    enum result result =
        kind->attach(binding->driver, vdev_door(), vdev_where(), &binding->memory_bytes);
    if (result != RESULT_OK)
        driver_free(binding);
    return result;
}

enum result bind(struct binding *binding, const struct test_kind *kind)
{
    enum result result = attach(binding, kind);

    if (result == RESULT_OK) {
        dma_share(binding->memory_bytes, &binding->memory);
        result = kind->start(binding->driver, &binding->memory);
        if (result != RESULT_OK)
            unbind(binding);
    }
    return result;
}

bool unbind(struct binding *binding)
{
    bool let_go = binding->kind->detach(binding->driver);

    if (!let_go)
        binding->leaked = true;
    else if (binding->memory.cpu)
        dma_unshare(&binding->memory);
    driver_free(binding);
    return let_go;
}

struct virtio_device *device_of(const struct binding *binding)
{
    return (struct virtio_device *)(void *)((char *)binding->driver + binding->kind->device_at);
}

void assert_no_violation(void)
{
    assert_int_equal(model_violations(), 0);
}

void assert_clean(void)
{
    assert_no_violation();
    assert_int_equal(dma_mapped(), 0);
    assert_int_equal(dma_shared(), 0);
    assert_int_equal(vdev_status(), 0);
    assert_false(vdev_live());
}

bool quiesce(struct binding *binding, uint64_t bound_ms)
{
    struct poor_door door = {.deadline = clock_ticks() + bound_ms * MS};

    vdev_poor(true);
    bool let_go = virtio_quiesce(&device_of(binding)->exit, &door);
    vdev_poor(false);
    return let_go;
}

bool refused_start(const struct test_kind *kind, const char *name,
                   const struct vdev_options *options, enum result result)
{
    struct binding binding;

    vdev_plug(options);
    enum result found = bind(&binding, kind);
    if (found == RESULT_OK)
        unbind(&binding);
    bool good = found == result && vdev_counted()->logs != 0 && vdev_status() == 0 &&
                model_violations() == 0 && dma_shared() == 0;
    if (!good)
        print_error("%s: result %d instead of %d, %llu sentences, status %#x\n", name, (int)found,
                    (int)result, (unsigned long long)vdev_counted()->logs, vdev_status());
    vdev_unplug();
    return good;
}

int run_for_each_kind(const char *group, const struct CMUnitTest *tests, size_t count)
{
    size_t total = count * test_kind_count, at = 0;
    struct CMUnitTest *all = calloc(total, sizeof(*all));
    char(*names)[128] = calloc(total, sizeof(*names));

    if (!all || !names)
        abort();
    for (size_t k = 0; k < test_kind_count; k++)
        for (size_t i = 0; i < count; i++, at++) {
            snprintf(names[at], sizeof(names[at]), "%s, %s", tests[i].name, test_kinds[k]->name);
            all[at] = tests[i];
            all[at].name = names[at];
            all[at].teardown_func = unplug;
            /* The state is for the tests to read only. */
            memcpy(&all[at].initial_state, &test_kinds[k], sizeof(void *));
        }
    int failed = _cmocka_run_group_tests(group, all, total, NULL, NULL);
    free(all);
    free(names);
    return failed;
}

int unplug(void **state)
{
    (void)state;
    vdev_unplug();
    for (size_t i = 0; i < test_kind_count; i++)
        if (test_kinds[i]->clean)
            test_kinds[i]->clean();
    for (unsigned i = 0; i < LENGTH(bound); i++) {
        free(bound[i]);
        bound[i] = NULL;
    }
    return 0;
}

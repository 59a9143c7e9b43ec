// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/unit/harness.h"

/* What is there now. */
static void *bound[4];

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

// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The ring by itself: what is planned, and what is believed of what comes back. */

#include "core/virtio/ring.h"
#include "tests/unit/harness.h"

#define INDIRECT  feature(VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX feature(VIRTIO_RING_F_EVENT_IDX)

static void plans(void **state)
{
    static const struct {
        uint16_t offered, chain;
        uint64_t features;
        bool may_shrink;
        enum result result;
        uint16_t size, slots;
    } plans[] = {
        {0, 2, 0, true, RESULT_UNSUPPORTED, 0, 0},
        {1, 2, 0, true, RESULT_UNSUPPORTED, 0, 0},
        {1, 1, 0, true, RESULT_UNSUPPORTED, 0, 0},
        {2, 3, INDIRECT, true, RESULT_UNSUPPORTED, 0, 0},
        {2, 2, 0, true, RESULT_OK, 2, 1},
        {2, 2, INDIRECT, true, RESULT_OK, 2, 2},
        {3, 3, 0, false, RESULT_OK, 3, 1},
        {3, 3, INDIRECT, false, RESULT_OK, 3, 1},
        {4, 3, 0, true, RESULT_OK, 4, 1},
        {100, 3, 0, true, RESULT_OK, 64, 21},
        {100, 3, 0, false, RESULT_OK, 100, 1},
        {128, 3, 0, true, RESULT_OK, 128, 42},
        {128, 3, INDIRECT, true, RESULT_OK, 128, 64},
        {1024, 18, 0, true, RESULT_OK, 1024, 56},
        {32768, 3, 0, true, RESULT_OK, 1024, 64},
        {32768, 3, 0, false, RESULT_OK, 32768, 64},
        {65535, 3, 0, true, RESULT_OK, 1024, 64},
        {65535, 3, 0, false, RESULT_OK, 65535, 1},
    };
    (void)state;
    for (unsigned i = 0; i < LENGTH(plans); i++) {
        struct ring ring;
        enum result result = ring_plan(&ring, plans[i].offered, plans[i].chain, plans[i].features,
                                       plans[i].may_shrink);
        assert_int_equal(result, plans[i].result);
        if (result != RESULT_OK)
            continue;
        assert_int_equal(ring.size, plans[i].size);
        assert_int_equal(ring.slots, plans[i].slots);
        /* Room for the rings and their event indices, the used ring on a page of its own. */
        size_t front = 16u * ring.size + 2u * (3u + ring.size);
        size_t least = (front + 4095) / 4096 * 4096 + 6 + 8u * ring.size;
        assert_true(ring_bytes(&ring) >= least);
        assert_true(ring_bytes(&ring) < least + 32 + 16u * 64 * plans[i].chain);
    }
}

struct rig {
    struct ring ring;
    struct dma_block memory;
    uint64_t busy;
};

/* A ring with `count` slots posted. */
static void rig_up(struct rig *rig, uint16_t size, uint16_t chain, uint64_t features,
                   unsigned count)
{
    unsigned slot;

    assert_int_equal(ring_plan(&rig->ring, size, chain, features, true), RESULT_OK);
    dma_share(ring_bytes(&rig->ring), &rig->memory);
    ring_init(&rig->ring, &rig->memory);
    for (unsigned i = 0; i < count; i++) {
        assert_true(ring_free_slot(&rig->ring, &slot));
        struct vring_desc *desc = ring_descriptors(&rig->ring, slot);
        for (unsigned k = 0; k < chain; k++)
            desc[k] = (struct vring_desc){.addr = 4096 * k, .len = k + 1};
        ring_post(&rig->ring, slot, chain);
    }
    rig->busy = rig->ring.busy;
}

static void answer(struct rig *rig, unsigned at, uint32_t id)
{
    rig->ring.used->ring[at % rig->ring.size] = (struct vring_used_elem){.id = id, .len = 1};
}

static void every_slot_once(void **state)
{
    (void)state;
    for (unsigned indirect = 0; indirect < 2; indirect++) {
        struct rig rig;
        bool seen[RING_SLOTS_MAX] = {false};
        unsigned slot, count = 0;

        rig_up(&rig, 64, 3, indirect ? INDIRECT : 0, 0);
        while (ring_free_slot(&rig.ring, &slot)) {
            assert_true(slot < RING_SLOTS_MAX && !seen[slot]);
            seen[slot] = true;
            ring_post(&rig.ring, slot, 3);
            count++;
        }
        assert_int_equal(count, indirect ? 64 : 21);
        assert_int_equal(rig.ring.avail->idx, count);
        dma_unshare(&rig.memory);
    }
}

static void ids_that_are_lies(void **state)
{
    (void)state;
    for (unsigned indirect = 0; indirect < 2; indirect++) {
        uint32_t spacing = indirect ? 1 : 3;
        for (uint32_t id = 0; id < 300; id++) {
            struct rig rig;
            unsigned slot;
            uint32_t written, told = id < 290 ? id : UINT32_MAX - (id - 290) * 3;
            rig_up(&rig, 64, 3, indirect ? INDIRECT : 0, 5);
            answer(&rig, 0, told);
            rig.ring.used->idx = 1;
            bool honest = told % spacing == 0 && told / spacing < 5;
            assert_int_equal(ring_take(&rig.ring, &slot, &written),
                             honest ? RING_USED : RING_BROKEN);
            if (honest) {
                assert_int_equal(slot, told / spacing);
                assert_int_equal(ring_take(&rig.ring, &slot, &written), RING_EMPTY);
            } else {
                assert_int_equal(rig.ring.busy, rig.busy);
            }
            dma_unshare(&rig.memory);
        }
    }
}

static void indices_that_are_lies(void **state)
{
    struct rig rig;
    unsigned slot;
    uint32_t written;
    (void)state;

    rig_up(&rig, 64, 3, INDIRECT, 5);
    for (unsigned i = 0; i < 64; i++)
        answer(&rig, i, i % 5);
    for (uint32_t index = 6; index < 65536; index++) {
        rig.ring.used->idx = (uint16_t)index;
        assert_int_equal(ring_take(&rig.ring, &slot, &written), RING_BROKEN);
    }
    /* As many as are out there are believed, each once. */
    rig.ring.used->idx = 5;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(ring_take(&rig.ring, &slot, &written), RING_USED);
    assert_int_equal(ring_take(&rig.ring, &slot, &written), RING_EMPTY);
    assert_int_equal(rig.ring.busy, 0);
    rig.ring.used->idx = 6;
    assert_int_equal(ring_take(&rig.ring, &slot, &written), RING_BROKEN);
    dma_unshare(&rig.memory);
}

/* A reset in the middle: everything is free, and the indices are those of a new ring. */
static void laid_out_anew(void **state)
{
    struct rig rig;
    unsigned slot;
    uint32_t written;
    (void)state;

    rig_up(&rig, 16, 3, INDIRECT | EVENT_IDX, 9);
    answer(&rig, 0, 3);
    rig.ring.used->idx = 1;
    assert_int_equal(ring_take(&rig.ring, &slot, &written), RING_USED);
    ring_init(&rig.ring, &rig.memory);
    assert_int_equal(rig.ring.busy, 0);
    assert_int_equal(rig.ring.avail->idx, 0);
    assert_int_equal(rig.ring.used->idx, 0);
    assert_int_equal(ring_take(&rig.ring, &slot, &written), RING_EMPTY);
    assert_false(ring_ready(&rig.ring));
    dma_unshare(&rig.memory);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(plans, unplug),
        cmocka_unit_test_teardown(every_slot_once, unplug),
        cmocka_unit_test_teardown(ids_that_are_lies, unplug),
        cmocka_unit_test_teardown(indices_that_are_lies, unplug),
        cmocka_unit_test_teardown(laid_out_anew, unplug),
    };
    return cmocka_run_group_tests_name("split ring", tests, NULL, NULL);
}

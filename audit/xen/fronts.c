/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/report.h"
#include "audit/xen/fronts.h"
#include "audit/xen/store.h"
#include "audit/xen/text.h"

#include <xen/io/xenbus.h>

struct front fronts[FRONTS_MAX];
size_t front_count;
bool fronts_complete;

/* What the toolstack writes for a frontend in an HVM domain (libxl: device_disk_add(),
 * libxl__set_xenstore_nic(), libxl__device_generic_add()). All else is a driver's. */
static const char *const keys_of_all[] = {"backend", "backend-id", "state", "trusted", NULL};
static const char *const keys_of_vbd[] = {"virtual-device", "device-type", NULL};
static const char *const keys_of_vif[] = {"handle", "mac", "mtu", NULL};

/* NULL: of this kind it is not known here how it begins. */
static const char *const *toolstack_keys(const char *kind)
{
    if (strcmp(kind, "vbd") == 0)
        return keys_of_vbd;
    return strcmp(kind, "vif") == 0 ? keys_of_vif : NULL;
}

static bool among(const char *key, const char *const *keys)
{
    for (; *keys != NULL; keys++)
        if (strcmp(key, *keys) == 0)
            return true;
    return false;
}

const char *state_name(int state)
{
    static const char *const names[] = {"Unknown",     "Initialising",  "InitWait",
                                        "Initialised", "Connected",     "Closing",
                                        "Closed",      "Reconfiguring", "Reconfigured"};

    if (state == STATE_UNREAD)
        return "not to be had";
    return state >= 0 && state < (int)(sizeof(names) / sizeof(names[0])) ? names[state]
                                                                         : "no state at all";
}

static int state_read(const char *path)
{
    char text[16];
    uint32_t state;

    if (!store_read(path, text, sizeof(text)))
        return STATE_UNREAD;
    return number_of(text, &state) && state <= XenbusStateReconfigured ? (int)state : STATE_ODD;
}

/* Keys that a driver has left, and the grants that they name. `folder` is "" or "/queue-0". */
static void front_keys(struct front *front, const char *folder)
{
    static struct listing lists[2];
    bool top = *folder == '\0';
    struct listing *list = &lists[top ? 0 : 1];
    char path[224], below[2 * NAME_MAX + 3], value[64];
    const char *key;

    app_format(path, sizeof(path), "%s%s", front->path, folder);
    if (!store_list(path, list)) {
        front->complete = false;
        return;
    }
    while ((key = listing_next(list)) != NULL) {
        if (top && (among(key, keys_of_all) || among(key, front->toolstack_keys)))
            continue;
        app_format(below, sizeof(below), "%s/%s", folder, key);
        app_format(path, sizeof(path), "%s%s", front->path, below);
        if (!store_read(path, value, sizeof(value))) {
            front->complete = false;
            continue;
        }
        say(front->name, "key", WRONG, "%s = \"%s\"", below + 1, value);
        reason(&front->keys, "%s", below + 1);

        uint32_t ref;
        bool is_ref = begins(key, "ring-ref") || strcmp(key, "tx-ring-ref") == 0 ||
                      strcmp(key, "rx-ring-ref") == 0;

        if (is_ref && number_of(value, &ref) && front->ref_count < REFS_MAX)
            front->refs[front->ref_count++] = ref;
        if (top && begins(key, "queue-"))
            front_keys(front, below);
    }
}

/* Where it is not known how a frontend begins, none of its states is wrong. */
static enum truth state_right(const struct front *front, int state, int right)
{
    if (state == right)
        return RIGHT;
    return front->toolstack_keys != NULL && state > XenbusStateInitialising ? WRONG : NEITHER;
}

static void front_read(struct front *front)
{
    uint32_t domain;
    char path[224], text[32];

    json_begin("device");
    json_text("device", front->name);
    json_null("vendor");
    json_null("id");
    json_null("class");
    json_text("kind", front->toolstack_keys != NULL ? front->kind : "other");
    json_text("path", front->path);
    json_list("drivers");
    json_list_end();
    json_null("busy");
    json_end();

    front->state = front->backend_state = STATE_UNREAD;
    front->backend_domain = DOMID_INVALID;
    front->complete = true;
    app_format(path, sizeof(path), "%s/state", front->path);
    front->state = state_read(path);

    app_format(path, sizeof(path), "%s/backend-id", front->path);
    if (store_read(path, text, sizeof(text)) && number_of(text, &domain) &&
        domain < DOMID_FIRST_RESERVED)
        front->backend_domain = domain;

    app_format(path, sizeof(path), "%s/backend", front->path);
    if (!store_read(path, front->backend, sizeof(front->backend)) ||
        !name_valid(front->backend, sizeof(front->backend) - 2, true))
        front->backend[0] = '\0';
    if (front->backend[0] != '\0') {
        app_format(path, sizeof(path), "%s/state", front->backend);
        front->backend_state = state_read(path);
    }
    if (front->toolstack_keys != NULL)
        front_keys(front, "");
    if (store.lost != NULL)
        front->complete = false;

    say(front->name, "frontend", state_right(front, front->state, XenbusStateInitialising), "%s",
        state_name(front->state));
    say(front->name, "backend", state_right(front, front->backend_state, XenbusStateInitWait),
        "%s, %s", state_name(front->backend_state),
        front->backend[0] != '\0' ? front->backend : "its path cannot be had");
}

void fronts_read(void)
{
    static struct listing kinds, numbers;
    const char *kind, *number;
    char path[96];
    size_t over = 0;

    front_count = 0;
    fronts_complete = false;
    if (!store_list("device", &kinds)) {
        /* A domain without any devices has no such folder. */
        fronts_complete = store.lost == NULL && strcmp(store.payload, "ENOENT") == 0;
        return;
    }
    fronts_complete = true;
    while ((kind = listing_next(&kinds)) != NULL) {
        app_format(path, sizeof(path), "device/%s", kind);
        if (strlen(kind) >= sizeof(fronts[0].kind) || !store_list(path, &numbers)) {
            fronts_complete = false;
            continue;
        }
        while ((number = listing_next(&numbers)) != NULL) {
            uint32_t unused;

            /* device/KIND/NUMBER; device/suspend has a key of another sort. */
            if (!number_of(number, &unused))
                continue;
            if (front_count == FRONTS_MAX) {
                over++;
                continue;
            }
            struct front *front = &fronts[front_count++];

            *front = (struct front){.toolstack_keys = toolstack_keys(kind)};
            app_format(front->kind, sizeof(front->kind), "%s", kind);
            app_format(front->name, sizeof(front->name), "xen:%s/%s", kind, number);
            app_format(front->path, sizeof(front->path), "device/%s/%s", kind, number);
            front_read(front);
        }
    }
    if (over > 0 || store.lost != NULL)
        fronts_complete = false;
    say_lost("frontends", over);
}

#include "value/messages.h"

static bool is_text(const Token *token)
{
    return token->kind == TOKEN_STR || (token->kind == TOKEN_EXT && token->ext == EXT_SURROGATES);
}

static bool equals(const Token *token, const char *text)
{
    return token->kind == TOKEN_STR && token->size == strlen(text) &&
           memcmp(token->bytes, text, token->size) == 0;
}

/* The value of a key in a map: the last one, as json.loads has it. False where there is none. */
static bool find_item(Reader map, const char *key, Reader *value)
{
    Token head;
    bool found = false;
    if (!reader_expect(&map, TOKEN_MAP, &head)) {
        return false;
    }
    for (uint32_t i = 0; i < head.size; i++) {
        Token name = reader_next(&map);
        if (equals(&name, key)) {
            *value = map;
            found = true;
        }
        if (!reader_skip(&map)) {
            return false;
        }
    }
    return found;
}

static bool item_is(Reader map, const char *key, const char *text)
{
    Reader value;
    if (!find_item(map, key, &value)) {
        return false;
    }
    Token token = reader_next(&value);
    return equals(&token, text);
}

static bool is_message(Reader value)
{
    Reader unused;
    return find_item(value, "role", &unused) && find_item(value, "content", &unused);
}

/* The last message of the role in a list, or the last one. False where there is none. */
static bool last_message(Reader list, const char *role, Reader *message)
{
    Token head = reader_next(&list);
    bool found = false, of_role = false;
    for (uint32_t i = 0; i < head.size; i++) {
        Reader item = list;
        if (!reader_skip(&list)) {
            return false;
        }
        if (is_message(item)) {
            bool is_of_role = item_is(item, "role", role);
            if (is_of_role || !of_role) {
                *message = item;
                found = true;
            }
            of_role |= is_of_role;
        }
    }
    return found;
}

/* The first text of a message's content. */
static bool text_of_content(Reader content, Token *text)
{
    *text = reader_next(&content);
    if (is_text(text)) {
        return true;
    }
    uint32_t parts = text->kind == TOKEN_ARRAY ? text->size : 0;
    for (uint32_t i = 0; i < parts; i++) {
        Reader part = content, value;
        if (!reader_skip(&content)) {
            return false;
        }
        bool holds_text = item_is(part, "type", "text") || item_is(part, "type", "output_text");
        if (holds_text) {
            if (!find_item(part, "text", &value)) {
                return false;
            }
            part = value;
        }
        *text = reader_next(&part);
        if (is_text(text)) {
            return true;
        }
        if (holds_text) {
            return false;
        }
    }
    return false;
}

/* The message of a value that counts. False where it has no place for any, or none there. */
static bool find_message(Reader value, const char *role, Reader *message)
{
    static const char *const lists[] = {"messages", "choices", "input", "output"};
    do {
        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
            Reader list, first;
            if (!find_item(value, lists[i], &list)) {
                continue;
            }
            first = list;
            Token head = reader_next(&first);
            if (head.kind != TOKEN_ARRAY || head.size == 0) {
                continue;
            }
            if (strcmp(lists[i], "choices") != 0) {
                return last_message(list, role, message);
            }
            if (find_item(first, "message", message) && is_message(*message)) {
                return true;
            }
        }
    } while (find_item(value, "request", &value));
    return false;
}

bool message_text(Reader value, const char *role, Token *text)
{
    Reader message, content;
    return find_message(value, role, &message) && find_item(message, "content", &content) &&
           text_of_content(content, text);
}

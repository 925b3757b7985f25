/* messages.h: the text of a chat message in an encoded value, found without decoding the value.
 *
 * The rules are those of previews.py, which decodes values that are not large: the formats of
 * OpenAI's APIs, and a ResponsesAgent's. */
#ifndef FASTTRACE_MESSAGES_H
#define FASTTRACE_MESSAGES_H

#include "value/wire.h"

/* Finds the text of the last message of a role or, where there is none, of the last message. False
 * where the value holds no messages or that one no text. `text` is borrowed from the value: a str,
 * or ext EXT_SURROGATES. */
bool message_text(Reader value, const char *role, Token *text);

#endif

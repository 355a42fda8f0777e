#ifndef CLLAMACOMMON_H
#define CLLAMACOMMON_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct llama_model;

/// A model's chat templates; read-only once made, but not for two threads at a time.
typedef struct cllama_chat_templates cllama_chat_templates;

/// A prompt, or why there is none.
typedef struct cllama_chat_prompt cllama_chat_prompt;

/// Reads the templates of a model, which may be loaded without weights; chatml if it has none.
///
/// Returns NULL if the model's template can't be parsed; `error` then holds the reason, at most
/// `error_capacity` bytes with the closing NUL.
cllama_chat_templates *cllama_chat_templates_create(
    const struct llama_model *model, char *error, size_t error_capacity);

void cllama_chat_templates_free(cllama_chat_templates *templates);

/// Applies the template to a JSON array of messages (`length` bytes, OpenAI's chat format).
///
/// Returns NULL only if memory is short.
cllama_chat_prompt *cllama_chat_prompt_create(
    const cllama_chat_templates *templates, const char *messages, size_t length);

void cllama_chat_prompt_free(cllama_chat_prompt *prompt);

/// Whether `cllama_chat_prompt_text` is the reason of a failure.
bool cllama_chat_prompt_is_error(const cllama_chat_prompt *prompt);

/// The prompt's or the reason's UTF-8 text; owned by `prompt`.
const char *cllama_chat_prompt_text(const cllama_chat_prompt *prompt, size_t *length);

size_t cllama_chat_prompt_stop_count(const cllama_chat_prompt *prompt);

/// A string that ends the answer; owned by `prompt`.
const char *cllama_chat_prompt_stop(
    const cllama_chat_prompt *prompt, size_t index, size_t *length);

/// Silences `common`'s own log, which otherwise writes to standard error from its own thread.
void cllama_common_silence(void);

#ifdef __cplusplus
}
#endif

#endif

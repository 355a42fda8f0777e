#include "CLlamaCommon.h"

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#include <llama-common/chat.h>
#include <llama-common/log.h>
#pragma clang diagnostic pop

#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <vector>

struct cllama_chat_templates {
    common_chat_templates_ptr templates;
};

struct cllama_chat_prompt {
    bool is_error = false;
    std::string text;
    std::vector<std::string> stops;
};

namespace {

/// Messages are read recursively in places; nobody nests them deeper than tool arguments.
constexpr int maximum_nesting = 64;

bool is_nested_too_deeply(const std::string &json) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < json.size(); i++) {
        const char c = json[i];
        if (in_string) {
            if (c == '\\') i++;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > maximum_nesting) return true;
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return false;
}

void copy_reason(const char *reason, char *target, size_t capacity) {
    if (capacity == 0) return;
    const std::string text(reason);
    const size_t count = std::min(text.size(), capacity - 1);
    text.copy(target, count);
    target[count] = 0;
}

cllama_chat_prompt *failure(const char *reason) noexcept {
    try {
        auto prompt = new cllama_chat_prompt();
        prompt->is_error = true;
        prompt->text = reason;
        return prompt;
    } catch (...) {
        return nullptr;
    }
}

}  // namespace

cllama_chat_templates *cllama_chat_templates_create(
    const struct llama_model *model, char *error, size_t error_capacity) {
    try {
        auto templates = common_chat_templates_init(model, "");
        return new cllama_chat_templates{std::move(templates)};
    } catch (...) {
        copy_reason("the chat template can't be read", error, error_capacity);
    }
    // The exception above is a sliced copy without its text: parse again for the reason.
    try {
        const char *source = llama_model_chat_template(model, nullptr);
        if (source) common_chat_template(source, "", "");
    } catch (const std::exception &exception) {
        copy_reason(exception.what(), error, error_capacity);
    } catch (...) {
    }
    return nullptr;
}

void cllama_chat_templates_free(cllama_chat_templates *templates) { delete templates; }

cllama_chat_prompt *cllama_chat_prompt_create(
    const cllama_chat_templates *templates, const char *messages, size_t length) {
    try {
        const std::string json(messages, length);
        if (is_nested_too_deeply(json)) return failure("the messages are nested too deeply");
        common_chat_templates_inputs inputs;
        inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(json));
        if (inputs.messages.empty()) return failure("there are no messages");
        inputs.use_jinja = true;
        inputs.add_generation_prompt = true;
        common_chat_params params =
            common_chat_templates_apply(templates->templates.get(), inputs);
        auto prompt = new cllama_chat_prompt();
        prompt->text = std::move(params.prompt);
        prompt->stops = std::move(params.additional_stops);
        return prompt;
    } catch (const std::exception &exception) {
        return failure(exception.what());
    } catch (...) {
        return failure("unknown exception");
    }
}

void cllama_chat_prompt_free(cllama_chat_prompt *prompt) { delete prompt; }

bool cllama_chat_prompt_is_error(const cllama_chat_prompt *prompt) { return prompt->is_error; }

const char *cllama_chat_prompt_text(const cllama_chat_prompt *prompt, size_t *length) {
    *length = prompt->text.size();
    return prompt->text.data();
}

size_t cllama_chat_prompt_stop_count(const cllama_chat_prompt *prompt) {
    return prompt->stops.size();
}

const char *cllama_chat_prompt_stop(
    const cllama_chat_prompt *prompt, size_t index, size_t *length) {
    *length = prompt->stops[index].size();
    return prompt->stops[index].data();
}

void cllama_common_silence(void) {
    try {
        // Below the level of every message.
        common_log_set_verbosity_thold(-1);
    } catch (...) {
    }
}

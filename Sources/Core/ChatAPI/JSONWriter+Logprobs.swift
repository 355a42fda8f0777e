extension JSONWriter {
    /// The form of chats: `{"content":[{token, logprob, bytes, top_logprobs}],"refusal":null}`.
    mutating func chatLogprobs(_ entries: [OutputLogprob], alternatives: Int) {
        object {
            $0.key("content")
            $0.array { array in
                for entry in entries {
                    array.object {
                        $0.chatToken(entry.token)
                        $0.key("top_logprobs")
                        $0.array { array in
                            for token in entry.alternatives.prefix(alternatives) {
                                array.object { $0.chatToken(token) }
                            }
                        }
                    }
                }
            }
            $0.nullMember("refusal")
        }
    }

    private mutating func chatToken(_ token: TokenText) {
        member("token", token.text)
        key("logprob")
        number(token.logprob)
        key("bytes")
        array { array in
            for byte in token.bytes { array.number(Int(byte)) }
        }
    }

    /// The form of completions: four arrays with one element per token.
    mutating func completionLogprobs(_ entries: [OutputLogprob], alternatives: Int) {
        object {
            $0.key("text_offset")
            $0.array { array in
                for entry in entries { array.number(entry.textOffset) }
            }
            $0.key("token_logprobs")
            $0.array { array in
                for entry in entries { array.number(entry.token.logprob) }
            }
            $0.key("tokens")
            $0.array { array in
                for entry in entries { array.string(entry.token.name) }
            }
            $0.key("top_logprobs")
            $0.array { array in
                for entry in entries { array.topLogprobs(entry, alternatives) }
            }
        }
    }

    /// The alternatives and the chosen token by name; names are unique, the likelier one stays.
    private mutating func topLogprobs(_ entry: OutputLogprob, _ alternatives: Int) {
        object {
            var names: Set<String> = []
            for token in entry.alternatives.prefix(alternatives) + [entry.token]
            where names.insert(token.name).inserted {
                $0.key(token.name)
                $0.number(token.logprob)
            }
        }
    }
}

extension TokenText {
    /// The text, or `bytes:\xe2\x82` for a part of a character, as OpenAI writes it.
    fileprivate var name: String {
        if let text = String(validating: bytes, as: UTF8.self) { return text }
        return bytes.reduce(into: "bytes:") { name, byte in
            name += (byte < 16 ? "\\x0" : "\\x") + String(byte, radix: 16)
        }
    }
}

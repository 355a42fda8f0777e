import CLlama
import InferenceEngine
import ServingTypes

extension GGUFFile {
    /// SHA-256 over all that a file says about its tokens and its chat template.
    ///
    /// Equal for two models whose tokens mean the same; the order of the entries doesn't matter.
    static func vocabularyDigest(path: String) throws(EngineError) -> [UInt8] {
        let (digest, errors) = LlamaLog.collectingErrors { () -> [UInt8]? in
            let parameters = unsafe gguf_init_params(no_alloc: true, ctx: nil)
            guard let gguf = unsafe gguf_init_from_file(path, parameters) else { return nil }
            defer { unsafe gguf_free(gguf) }
            var entries: [(key: String, index: Int64)] = []
            for index in 0..<(unsafe gguf_get_n_kv(gguf)) {
                let key = unsafe String(cString: gguf_get_key(gguf, index))
                if key.hasPrefix("tokenizer.") { entries.append((key, index)) }
            }
            var hash = SHA256()
            for entry in entries.sorted(by: { $0.key < $1.key }) {
                hash.update(Array(entry.key.utf8) + [0])
                unsafe add(gguf, entry.index, to: &hash)
            }
            return hash.finalize()
        }
        guard let digest else {
            throw .modelNotLoaded(
                path: path, reason: "its header is damaged: \(errors.joined(separator: "; "))")
        }
        return digest
    }

    private static func add(_ gguf: OpaquePointer, _ index: Int64, to hash: inout SHA256) {
        let type = unsafe gguf_get_kv_type(gguf, index)
        switch type {
        case GGUF_TYPE_STRING:
            unsafe hash.update(bytes(gguf_get_val_str(gguf, index)))
        case GGUF_TYPE_ARRAY:
            let count = unsafe gguf_get_arr_n(gguf, index)
            let element = unsafe gguf_get_arr_type(gguf, index)
            if element == GGUF_TYPE_STRING {
                for place in 0..<count {
                    unsafe hash.update(bytes(gguf_get_arr_str(gguf, index, place)))
                }
            } else {
                unsafe hash.update(
                    bytes(gguf_get_arr_data(gguf, index), count * elementBytes(element)))
            }
        default:
            unsafe hash.update(bytes(gguf_get_val_data(gguf, index), elementBytes(type)))
        }
    }

    private static func bytes(_ text: UnsafePointer<CChar>?) -> [UInt8] {
        guard let text = unsafe text else { return [0] }
        return Array(unsafe String(cString: text).utf8) + [0]
    }

    private static func bytes(_ start: UnsafeRawPointer?, _ count: Int) -> [UInt8] {
        unsafe Array(UnsafeRawBufferPointer(start: start, count: count))
    }

    private static func elementBytes(_ type: gguf_type) -> Int {
        switch type {
        case GGUF_TYPE_UINT8, GGUF_TYPE_INT8, GGUF_TYPE_BOOL: 1
        case GGUF_TYPE_UINT16, GGUF_TYPE_INT16: 2
        case GGUF_TYPE_UINT64, GGUF_TYPE_INT64, GGUF_TYPE_FLOAT64: 8
        default: 4
        }
    }
}

import CLlama
package import DeviceProfile
package import InferenceEngine

extension LlamaEngine {
    /// The sizes of a model by its file's header; the weights are not read.
    ///
    /// - Throws: if the file can't be read, or isn't of a language model.
    package static func shape(ofModelAt path: String) throws(EngineError) -> ModelShape {
        LlamaLog.prepareLibrary()
        _ = try GGUFFile(path: path)
        let (contents, errors) = LlamaLog.collectingErrors { () -> GGUFContents? in
            let parameters = unsafe gguf_init_params(no_alloc: true, ctx: nil)
            guard let gguf = unsafe gguf_init_from_file(path, parameters) else { return nil }
            defer { unsafe gguf_free(gguf) }
            return unsafe GGUFContents(gguf)
        }
        guard let contents else {
            throw .modelNotLoaded(
                path: path, reason: "its header is damaged: \(errors.joined(separator: "; "))")
        }
        let file = path.split(separator: "/").last.map(String.init) ?? path
        var name = file
        if case .text(let written)? = contents.metadata["general.name"] { name = written }
        do {
            return try ModelShape(
                name: name, metadata: contents.metadata, tensors: contents.tensors)
        } catch {
            switch error {
            case .missing(let key):
                throw .modelNotLoaded(path: path, reason: "its metadata lacks '\(key)'")
            case .noTensors: throw .modelNotLoaded(path: path, reason: "it has no weights")
            }
        }
    }
}

/// What a file's header says.
private struct GGUFContents {
    var metadata: [String: MetadataValue] = [:]
    var tensors: [TensorSize] = []

    @unsafe init(_ gguf: OpaquePointer) {
        for index in 0..<(unsafe gguf_get_n_kv(gguf)) {
            let key = unsafe String(cString: gguf_get_key(gguf, index))
            if let value = unsafe Self.value(gguf, index) { metadata[key] = value }
        }
        for index in 0..<(unsafe gguf_get_n_tensors(gguf)) {
            let type = unsafe gguf_get_tensor_type(gguf, index)
            let bytes = unsafe gguf_get_tensor_size(gguf, index)
            let elements = bytes / max(ggml_type_size(type), 1) * Int(ggml_blck_size(type))
            tensors.append(
                TensorSize(
                    name: unsafe String(cString: gguf_get_tensor_name(gguf, index)),
                    type: unsafe String(cString: ggml_type_name(type)), elements: elements,
                    bytes: bytes))
        }
    }

    @unsafe private static func value(_ gguf: OpaquePointer, _ index: Int64) -> MetadataValue? {
        switch unsafe gguf_get_kv_type(gguf, index) {
        case GGUF_TYPE_UINT32: .integer(Int(unsafe gguf_get_val_u32(gguf, index)))
        case GGUF_TYPE_INT32: .integer(Int(unsafe gguf_get_val_i32(gguf, index)))
        case GGUF_TYPE_UINT64: .integer(Int(clamping: unsafe gguf_get_val_u64(gguf, index)))
        case GGUF_TYPE_INT64: .integer(Int(unsafe gguf_get_val_i64(gguf, index)))
        case GGUF_TYPE_UINT16: .integer(Int(unsafe gguf_get_val_u16(gguf, index)))
        case GGUF_TYPE_FLOAT32: .number(Double(unsafe gguf_get_val_f32(gguf, index)))
        case GGUF_TYPE_FLOAT64: .number(unsafe gguf_get_val_f64(gguf, index))
        case GGUF_TYPE_BOOL: .truth(unsafe gguf_get_val_bool(gguf, index))
        case GGUF_TYPE_STRING:
            .text(unsafe String(cString: gguf_get_val_str(gguf, index)))
        case GGUF_TYPE_ARRAY: unsafe array(gguf, index)
        default: nil
        }
    }

    @unsafe private static func array(_ gguf: OpaquePointer, _ index: Int64) -> MetadataValue {
        let count = unsafe gguf_get_arr_n(gguf, index)
        let type = unsafe gguf_get_arr_type(gguf, index)
        guard type == GGUF_TYPE_UINT32 || type == GGUF_TYPE_INT32,
            let data = unsafe gguf_get_arr_data(gguf, index)
        else { return .list(count: count) }
        let numbers = unsafe UnsafeBufferPointer(
            start: data.assumingMemoryBound(to: Int32.self), count: count)
        return .integers(unsafe numbers.map { Int($0) })
    }
}

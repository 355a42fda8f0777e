/// How long one kind of machine takes for the phases of one model.
package struct PhaseCurves: Sendable, Hashable {
    /// Seconds of a prefill, by the tokens of all its prompts.
    package let prefill: PiecewiseLine
    /// Seconds of a decode step, by tokens.
    ///
    /// Measured over prompt tokens times batch; the simulation looks up the number of sequences,
    /// as SplitwiseSim does, which makes batching of decodes almost free.
    package let decode: PiecewiseLine

    package init(prefill: PiecewiseLine, decode: PiecewiseLine) {
        self.prefill = prefill
        self.decode = decode
    }
}

/// Measured times of models on machines: the rows of SplitwiseSim's `perf_model.csv`.
package struct PerformanceTable: Sendable {
    package struct Key: Hashable, Sendable, CustomStringConvertible {
        package var model: String
        package var hardware: String
        package var tensorParallel: Int

        package init(model: String, hardware: String, tensorParallel: Int) {
            self.model = model
            self.hardware = hardware
            self.tensorParallel = tensorParallel
        }

        package var description: String { "\(model) on \(tensorParallel) \(hardware)" }
    }

    /// What is wrong with a table.
    package enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        /// Give a file with this column in its first line.
        case missingColumn(String)
        /// The line lacks fields or has words for numbers.
        case malformed(line: Int)
        /// Measure, or choose a machine and model that the table has.
        case noCurves(Key, known: [String])

        package var description: String {
            switch self {
            case .missingColumn(let name): "the performance table has no column \(name)"
            case .malformed(let line): "line \(line) of the performance table is malformed"
            case .noCurves(let key, let known):
                "the performance table does not know \(key), but \(known.joined(separator: ", "))"
            }
        }
    }

    private var curves: [Key: PhaseCurves] = [:]

    /// Reads columns model, hardware, tensor_parallel, prompt_size, batch_size, and prompt_time
    /// and token_time in ms; others are ignored.
    package init(text: String) throws(Failure) {
        let lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        let names = lines.first?.split(separator: ",").map(String.init) ?? []
        var columns: [Int] = []
        for name in [
            "model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "prompt_time",
            "token_time",
        ] {
            guard let column = names.firstIndex(of: name) else { throw .missingColumn(name) }
            columns.append(column)
        }
        var prefill: [Key: [(x: Double, y: Double)]] = [:]
        var decode: [Key: [(x: Double, y: Double)]] = [:]
        for (number, line) in lines.enumerated().dropFirst() where !line.isEmpty {
            let fields = line.split(separator: ",", omittingEmptySubsequences: false)
            guard fields.count == names.count, let parallel = Int(fields[columns[2]]),
                let prompt = Double(fields[columns[3]]), let batch = Double(fields[columns[4]]),
                let prefillTime = Double(fields[columns[5]]),
                let decodeTime = Double(fields[columns[6]])
            else { throw .malformed(line: number + 1) }
            let key = Key(
                model: String(fields[columns[0]]), hardware: String(fields[columns[1]]),
                tensorParallel: parallel)
            prefill[key, default: []].append((prompt * batch, prefillTime / 1000))
            decode[key, default: []].append((prompt * batch, decodeTime / 1000))
        }
        for (key, points) in prefill {
            guard let first = PiecewiseLine(points: points),
                let second = PiecewiseLine(points: decode[key, default: []])
            else { continue }
            curves[key] = PhaseCurves(prefill: first, decode: second)
        }
    }

    package func curves(_ key: Key) throws(Failure) -> PhaseCurves {
        guard let found = curves[key] else {
            throw .noCurves(key, known: curves.keys.map(\.description).sorted())
        }
        return found
    }
}

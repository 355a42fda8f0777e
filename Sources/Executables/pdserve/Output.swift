import Foundation

/// Writes a line that appears at once, also in a file or a pipe.
func write(_ text: String, terminator: String = "\n") {
    FileHandle.standardOutput.write(Data((text + terminator).utf8))
}

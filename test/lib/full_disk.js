// Lets a program write nothing more to its files while a certain one exists, as if the disk were full.
//
//     FULL=FILE node --require full_disk.js PROGRAM

const fs = require('fs')
const { open } = fs.promises

fs.promises.open = async (...of) => {
  const handle = await open(...of)
  const appendFile = handle.appendFile.bind(handle)
  handle.appendFile = async data => {
    if (fs.existsSync(process.env.FULL)) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
    return appendFile(data)
  }
  return handle
}

# cmake -D SOURCE=… -D PATCH=… -D OUTPUT=… -D PROGRAM=patch -P plant.cmake
# A copy of one source with a bug planted in it. The bug must fit exactly: one that lands somewhere
# else would prove nothing.
execute_process(
  COMMAND ${PROGRAM} --force --silent --fuzz=0 --output ${OUTPUT} ${SOURCE} ${PATCH}
  RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
if(failed)
  file(REMOVE ${OUTPUT} ${OUTPUT}.rej ${OUTPUT}.orig)
  message(FATAL_ERROR "The planted bug ${PATCH} fits ${SOURCE} no more: the source changed there. "
                      "Plant the same bug in the new code and make the patch anew.\n${said}")
endif()
